"""A child process of the agent that exchanges pieces with the other devices of its site: the only importer of libtorrent
on a device. `python -m agent_daemon.swarm`, spoken to by `swarm_messages` on its standard input and output."""

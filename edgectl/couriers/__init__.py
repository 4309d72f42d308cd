"""Processes of the control side that hold the connections to devices, so that encryption uses every core and the main
process is free (and may still be importing) meanwhile.

    with Couriers(spawn(), ask=passphrase) as couriers:
        seen = couriers.observe(devices)
        couriers.deliver(step, device, terms, rate=None)
        event = couriers.next(timeout)

`office` is the main process's side, `courier` the other, `messages` what they say to each other; `spawn` starts them, and
imports nothing that takes time.
"""

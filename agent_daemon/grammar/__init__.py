"""What an answer may look like, as GBNF: grammars made from JSON Schemas, and judged before an engine gets them."""

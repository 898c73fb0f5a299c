"""Order flow: recorded at exchanges or made from a seed, and the oracle that judges the engine by it.

======================  ======================================================
`formats`               files of every recorded format → `Flow`, trades, book states
`flow`                  rows in columns, each exactly one command
`venue`                 the market, accounts, fees and scrambled names that flow runs on
`generator`             synthetic flow where nothing recorded is at hand
`run`                   a flow through `apply`, read back and compared
`fills`, `compare`      events → fills, reports, checksum; the first difference
`oracle`                `holdfast oracle`
======================  ======================================================
"""

"""What can be said of spot pools: what they showed, what is made of it, what a loss costs. Pure; no topics here."""

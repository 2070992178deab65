"""Operations are written once, as generators, and driven by a blocking and by an async driver."""

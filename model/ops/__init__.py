"""Operations written by hand for speed."""

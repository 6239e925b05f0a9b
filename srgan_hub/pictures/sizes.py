def plan_size(size, width, height, *, scale):
    if isinstance(size, str):
        f = int(size[0])
        return width * f, height * f
    r = size / max(width, height)
    if r > scale:
        raise ValueError(f"Expected a longest side of at most {scale * max(width, height)} pixels, got {size}.")
    return max(1, round(width * r)), max(1, round(height * r))

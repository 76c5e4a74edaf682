"""Products on tensor cores: TF32, float64, and float32 as two float16."""

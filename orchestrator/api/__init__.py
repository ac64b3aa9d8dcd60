"""The API process: two calls for workers, what readers may see, what people decide. HTTP lives here alone."""

"""Where datasets come from: files of arrays, TensorFlow Datasets, drawn shapes."""

"""What the scripts write beside a trained model: tables, scores, figures, pages."""

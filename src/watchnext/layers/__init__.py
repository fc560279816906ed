"""What both networks are built from: embedding tables with their row-wise optimizer, and towers."""

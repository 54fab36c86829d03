"""Models of one series, each behind `forecasting.protocol.Forecaster`."""

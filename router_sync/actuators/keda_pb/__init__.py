"""Messages of KEDA's external scaler, generated from externalscaler.proto beside it:

cd router_sync/actuators/keda_pb && python -m grpc_tools.protoc -I. --python_out=. externalscaler.proto
"""

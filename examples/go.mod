module github.com/masegraye/connect-plugin-go/examples

go 1.26.0

replace github.com/masegraye/connect-plugin-go => ../

require (
	connectrpc.com/connect v1.21.1
	connectrpc.com/connect/v2 v2.0.2
	github.com/masegraye/connect-plugin-go v0.0.0-00010101000000-000000000000
	go.etcd.io/bbolt v1.5.0
	go.yaml.in/yaml/v3 v3.0.4
	google.golang.org/protobuf v1.36.12
)

require (
	go.uber.org/dig v1.19.0 // indirect
	go.uber.org/multierr v1.10.0 // indirect
	go.uber.org/zap v1.26.0 // indirect
)

require (
	github.com/Masterminds/semver/v3 v3.5.0 // indirect
	github.com/masegraye/connect-plugin-go/connectpluginfx v0.0.0-00010101000000-000000000000
	go.uber.org/fx v1.24.0
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/masegraye/connect-plugin-go/connectpluginfx => ../connectpluginfx

require github.com/masegraye/connect-plugin-go/connectpluginv2 v0.0.0-00010101000000-000000000000

replace github.com/masegraye/connect-plugin-go/connectpluginv2 => ../connectpluginv2

tool connectrpc.com/connect/v2/cmd/protoc-gen-connect-go

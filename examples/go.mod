module github.com/masegraye/connect-plugin-go/examples

go 1.26.0

replace github.com/masegraye/connect-plugin-go => ../

require (
	connectrpc.com/connect v1.21.1
	connectrpc.com/connect/v2 v2.0.2
	github.com/masegraye/connect-plugin-go v0.0.0-00010101000000-000000000000
	go.etcd.io/bbolt v1.5.0
	go.yaml.in/yaml/v3 v3.0.5
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/masegraye/connect-plugin-go/console v0.0.0-00010101000000-000000000000 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_golang v1.25.0 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/otlptranslator v1.0.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/spf13/cobra v1.10.2 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/exporters/prometheus v0.69.0 // indirect
	go.opentelemetry.io/otel/log v1.47.0 // indirect
	go.opentelemetry.io/otel/metric v1.47.0 // indirect
	go.opentelemetry.io/otel/sdk v1.47.0 // indirect
	go.opentelemetry.io/otel/sdk/metric v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
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

require (
	github.com/masegraye/connect-plugin-go/connectpluginotel v0.0.0-00010101000000-000000000000
	github.com/masegraye/connect-plugin-go/connectpluginv2 v0.0.0-00010101000000-000000000000
)

replace github.com/masegraye/connect-plugin-go/connectpluginv2 => ../connectpluginv2

tool (
	connectrpc.com/connect/v2/cmd/protoc-gen-connect-go
	github.com/masegraye/connect-plugin-go/console/cmd/connectpluginctl
)

replace github.com/masegraye/connect-plugin-go/console => ../console

replace github.com/masegraye/connect-plugin-go/connectpluginotel => ../connectpluginotel

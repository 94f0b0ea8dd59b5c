module github.com/masegraye/connect-plugin-go

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	github.com/Masterminds/semver/v3 v3.5.0
	golang.org/x/net v0.62.0
	golang.org/x/time v0.16.0
	google.golang.org/protobuf v1.36.12
)

require golang.org/x/text v0.43.0 // indirect

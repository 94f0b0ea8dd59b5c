//go:build unix

package demo

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	capabilityv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	capability "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
)

// entries is the capability "logger" of the second act's host: what plugins log is accepted
// and shown to nobody.
type entries struct{ http.Handler }

var _ connectplugin.CapabilityHandler = entries{}

func newEntries() entries {
	_, handler := capability.NewLoggerHandler(entries{})

	return entries{handler}
}

// CapabilityType implements [connectplugin.CapabilityHandler].
func (entries) CapabilityType() string { return "logger" }

// Version implements [connectplugin.CapabilityHandler].
func (entries) Version() string { return "1.0.0" }

// Log implements the capability.
func (entries) Log(context.Context, *connect.Request[capabilityv1.LogRequest]) (*connect.Response[capabilityv1.LogResponse], error) {
	return connect.NewResponse(&capabilityv1.LogResponse{}), nil
}

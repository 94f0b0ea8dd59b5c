package connectplugin

import (
	"context"
	"slices"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// offer tells a plugin which of the host's plugins and capabilities are there
// for it: those that it asked for (all where it asked for none) and policy lets
// it use.
func (h *Host) offer(ctx context.Context, id *tokenstore.Identity, requested []string) offer {
	var o offer
	for _, name := range h.cfg.Plugins.Keys() {
		if len(requested) > 0 && !slices.Contains(requested, name) {
			continue
		}
		if h.offersPlugin(id, name) {
			o.plugins = append(o.plugins, pluginInfo(name, h.cfg.Plugins[name].Metadata()))
		}
	}
	if id == nil {
		return o
	}
	for _, c := range h.broker.ListCapabilities() {
		if h.hub.mayUse(id, c.GetType()) {
			c.Endpoint = h.broker.base(ctx)
			o.capabilities = append(o.capabilities, c)
		}
	}
	return o
}

func (h *Host) offersPlugin(id *tokenstore.Identity, name string) bool {
	if h.hub.rules.Load().public.has(name) || len(h.cfg.AuthProviders) > 0 {
		return true
	}
	return id != nil && h.hub.mayCallHostPlugin(id, name)
}

func pluginInfo(name string, m PluginMetadata) *connectpluginv1.PluginInfo {
	info := &connectpluginv1.PluginInfo{Name: name, Version: m.Version, ServicePath: m.Path}
	info.Provides, info.Requires = wireDeclarations(m.Provides), wireDependencies(m.Requires)
	return info
}

func wireDeclarations(in []ServiceDeclaration) []*connectpluginv1.ServiceDeclaration {
	out := make([]*connectpluginv1.ServiceDeclaration, 0, len(in))
	for _, d := range in {
		out = append(out, &connectpluginv1.ServiceDeclaration{Type: d.Type, Version: d.Version, Path: d.Path})
	}
	return out
}

func wireDependencies(in []ServiceDependency) []*connectpluginv1.ServiceDependency {
	out := make([]*connectpluginv1.ServiceDependency, 0, len(in))
	for _, d := range in {
		out = append(out, &connectpluginv1.ServiceDependency{
			Type: d.Type, MinVersion: d.MinVersion,
			RequiredForStartup: d.RequiredForStartup, WatchForChanges: d.WatchForChanges,
		})
	}
	return out
}

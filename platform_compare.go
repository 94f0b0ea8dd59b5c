package connectplugin

import (
	"errors"
	"fmt"
	"slices"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// errOtherThanConfigured says that a plugin says of itself what the host was not told.
var errOtherThanConfigured = errors.New("the plugin is other than configured")

// compare holds what a plugin says of itself against the configuration.
func (c PluginConfig) compare(info *connectpluginv1.GetPluginInfoResponse) error {
	differs := func(what, is, want any) error {
		return fmt.Errorf("%w: %s is %q, configured is %q", errOtherThanConfigured, what, is, want)
	}
	provides, requires := make([]string, 0, len(info.GetProvides())), make([]string, 0, len(info.GetRequires()))
	for _, d := range info.GetProvides() {
		provides = append(provides, printable(d.GetType()+" "+d.GetVersion()))
	}
	for _, d := range info.GetRequires() {
		requires = append(requires, printable(d.GetType()))
	}
	slices.Sort(provides)
	slices.Sort(requires)
	wantProvides := make([]string, 0, len(c.Metadata.Provides))
	for _, d := range c.Metadata.Provides {
		wantProvides = append(wantProvides, d.Type+" "+d.Version)
	}
	slices.Sort(wantProvides)
	wantRequires := make([]string, 0, len(c.Metadata.Requires))
	for _, d := range c.Metadata.Requires {
		wantRequires = append(wantRequires, d.Type)
	}
	slices.Sort(wantRequires)
	switch {
	case info.GetSelfId() != c.SelfID:
		return differs("its self id", printable(info.GetSelfId()), c.SelfID)
	case c.SelfVersion != "" && info.GetSelfVersion() != c.SelfVersion:
		return differs("its version", printable(info.GetSelfVersion()), c.SelfVersion)
	case len(wantProvides) > 0 && !slices.Equal(provides, wantProvides):
		return differs("what it provides", provides, wantProvides)
	case len(wantRequires) > 0 && !slices.Equal(requires, wantRequires):
		return differs("what it requires", requires, wantRequires)
	}
	return nil
}

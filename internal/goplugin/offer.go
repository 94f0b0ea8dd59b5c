package goplugin

import (
	"strconv"
	"strings"
)

// Offer is what a plugin is started with.
type Offer struct {
	// CookieKey and CookieValue tell the plugin that a host starts it. They are no secret.
	CookieKey, CookieValue string
	// Versions are those that the host understands.
	Versions []int
	// SocketDir is where the plugin makes its socket.
	SocketDir string
}

// Environment returns the variables that tell a plugin so, and whom it may take for its host.
func (o Offer) Environment(host *Identity) []string {
	versions := make([]string, len(o.Versions))
	for i, v := range o.Versions {
		versions[i] = strconv.Itoa(v)
	}
	return []string{
		o.CookieKey + "=" + o.CookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=" + strings.Join(versions, ","),
		"PLUGIN_CLIENT_CERT=" + string(host.pem),
		"PLUGIN_UNIX_SOCKET_DIR=" + o.SocketDir,
	}
}

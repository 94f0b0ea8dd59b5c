package connectplugin

import "github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"

// Names of the wire: headers, paths and metadata keys.
const (
	headerRuntimeID     = "X-Plugin-Runtime-Id"
	headerCallerID      = "X-Plugin-Caller-Id"
	headerAuthorization = "Authorization"
	bearerPrefix        = "Bearer "
	headerCacheControl  = "Cache-Control"
	noStore             = "no-store"
	headerChallenge     = "Www-Authenticate"
	bearerChallenge     = "Bearer"

	pathServices     = "/services/"
	pathCapabilities = "/capabilities/"
	pathHealthz      = "/healthz"
	pathReadyz       = "/readyz"

	// What the host alone calls at a plugin.
	pathControl  = "/" + connectpluginv1connect.PluginControlName + "/"
	pathIdentity = "/" + connectpluginv1connect.PluginIdentityName + "/"

	// metadataBaseURL is where a self-registering plugin says it is served.
	metadataBaseURL = "base_url"
	// metadataWeight is the share of the calls that a provider asks for.
	metadataWeight = "weight"

	coreProtocolVersion = 1
)

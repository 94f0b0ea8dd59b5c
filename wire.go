package connectplugin

// Names of the wire: headers, paths and metadata keys.
const (
	headerRuntimeID     = "X-Plugin-Runtime-Id"
	headerCallerID      = "X-Plugin-Caller-Id"
	headerAuthorization = "Authorization"
	bearerPrefix        = "Bearer "

	pathServices     = "/services/"
	pathCapabilities = "/capabilities/"
	pathHealthz      = "/healthz"
	pathReadyz       = "/readyz"

	// metadataBaseURL is where a self-registering plugin says it is served.
	metadataBaseURL = "base_url"

	coreProtocolVersion = 1
)

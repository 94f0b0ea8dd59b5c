// Package goplugin speaks to plugins that were built with hashicorp/go-plugin, versions 1.6
// to 1.8, and serve gRPC: how they are started, what they say on their first line, and the
// services that the library adds to each of them. It starts no process and knows no host.
//
// The conversation, as those versions hold it: the environment carries a cookie, the versions
// that the host understands, the host's certificate and a directory for the socket. The
// plugin makes a certificate of its own and prints one line with its address and that
// certificate; each side then accepts exactly the other's. Behind the line the plugin's
// standard output is a stream of its gRPC server, which somebody has to read for as long as
// the plugin lives, or whatever prints in it stands still.
package goplugin

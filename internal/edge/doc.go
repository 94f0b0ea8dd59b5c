// Package edge takes connections from a network on which anyone may knock: so many, from
// each address so many that proved nothing, with TLS that is agreed on in time, and
// HTTP/2 on them whose frames cost no more than the requests on the connection explain.
// It knows frames (RFC 9113) and no requests.
package edge

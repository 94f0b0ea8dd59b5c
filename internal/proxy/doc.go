// Package proxy is the core of the host's router: it forwards one RPC to one
// provider and passes the response back, unchanged where it belongs to the RPC
// and not at all where it does not.
//
// What a caller may reach is not decided here. The router authenticates, asks
// policy, selects a [Provider] and calls [Provider.Forward]; [ParseRoute],
// [JoinPath] and [ParseEndpoint] read what others wrote, and refuse what could
// be read in two ways. The [Result] says whether the caller is still owed an
// answer, and whether another provider may be asked.
//
// A provider on the network is reached over HTTP/2 connections of its own, which
// package h2 keeps; one in the host's process is called without any.
package proxy

// Package grpcgo is the peer on gRPC-Go, with nothing of this library in it.
package grpcgo

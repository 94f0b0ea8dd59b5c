package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

const checkTimeout = 5 * time.Second

// names splits the flag -hosts.
func names(flag string) []string {
	if flag == "" {
		return nil
	}

	return strings.Split(flag, ",")
}

// ownURL is how the host reaches itself: by the first of its names, or at the address
// that it listens on.
func ownURL(addr string, hosts []string) string {
	if _, port, err := net.SplitHostPort(addr); err == nil && len(hosts) > 0 {
		addr = net.JoinHostPort(hosts[0], port)
	}

	return "https://" + addr
}

// check asks the host on this machine whether it is ready, as a probe of a container
// does that has no other program.
func check(ctx context.Context, addr, dir string) error {
	authority, err := loadAuthority(dir)
	if err != nil {
		return err
	}

	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}

	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort("localhost", port)+"/readyz", http.NoBody)
	if err != nil {
		return err
	}

	var protocols http.Protocols

	protocols.SetHTTP2(true)

	transport := &http.Transport{TLSClientConfig: authority.ClientTLS(), Protocols: &protocols}
	defer transport.CloseIdleConnections()

	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // nothing was written

	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: status %d", errNotReady, res.StatusCode)
	}

	return nil
}

var errNotReady = errors.New("the host is not ready")

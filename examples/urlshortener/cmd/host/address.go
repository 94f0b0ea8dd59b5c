package main

import (
	"context"
	"crypto/tls"
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
// does that has no other program: in plaintext where the host answers probes so, and
// otherwise as a plugin asks.
func check(ctx context.Context, health, addr, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()

	if health != "" {
		_, port, err := net.SplitHostPort(health)
		if err != nil {
			return fmt.Errorf("-health: %w", err)
		}

		return ready(ctx, "http://"+net.JoinHostPort("localhost", port), nil)
	}

	authority, err := loadAuthority(dir)
	if err != nil {
		return err
	}

	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}

	return ready(ctx, "https://"+net.JoinHostPort("localhost", port), authority.ClientTLS())
}

// ready asks a host at a base URL.
func ready(ctx context.Context, url string, trust *tls.Config) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		return err
	}

	var protocols http.Protocols

	protocols.SetHTTP1(trust == nil)
	protocols.SetHTTP2(trust != nil)

	transport := &http.Transport{TLSClientConfig: trust, Protocols: &protocols}
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

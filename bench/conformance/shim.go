package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const childGrace = 3 * time.Second

// serveClient is the client under test: the suite's reference client behind a
// bridge to each server that the runner names.
func serveClient(ctx context.Context, programs, tallies string) (err error) {
	cmd := child(ctx, filepath.Join(programs, "referenceclient"))
	cmd.Stdout = os.Stdout
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("reference client: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("reference client: %w", err)
	}
	b := bridges{tally: &tally{}, open: map[string]*bridge{}}
	err = b.passRequests(ctx, os.Stdin, in)
	err = errors.Join(err, in.Close(), cmd.Wait())
	b.close()
	return errors.Join(err, b.tally.store(tallies))
}

// bridges are the bridges to the servers that the runner named.
type bridges struct {
	tally *tally
	open  map[string]*bridge
}

// passRequests hands the runner's requests to the client, each with the bridge in
// place of the server.
func (b *bridges) passRequests(ctx context.Context, from io.Reader, to io.Writer) error {
	for {
		request, err := readMessage(from)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		upstream, err := readServer(request, requestHost, requestPort, requestCert)
		if err != nil {
			return err
		}
		bridge, err := b.to(ctx, upstream)
		if err != nil {
			return err
		}
		if err := writeMessage(to, appendServer(request, bridge.address(), requestHost, requestPort, requestCert)); err != nil {
			return err
		}
	}
}

// to returns the bridge to a server.
func (b *bridges) to(ctx context.Context, upstream server) (*bridge, error) {
	key := fmt.Sprint(upstream.host, " ", upstream.port)
	if have := b.open[key]; have != nil {
		return have, nil
	}
	made, err := newBridge(ctx, upstream, b.tally)
	if err != nil {
		return nil, err
	}
	b.open[key] = made
	return made, nil
}

func (b *bridges) close() {
	for _, bridge := range b.open {
		bridge.close()
	}
}

// serveServer is the server under test: the suite's reference server behind a
// bridge. It ends with ctx.
func serveServer(ctx context.Context, programs, tallies string, bridgeTo func(context.Context, server, *tally) (*bridge, error)) error {
	request, err := readMessage(os.Stdin)
	if err != nil {
		return err
	}
	cmd := child(context.WithoutCancel(ctx), filepath.Join(programs, "referenceserver"))
	response, err := startServer(cmd, request)
	if cmd.Process != nil {
		defer func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait() // ends by the signal
		}()
	}
	if err != nil {
		return fmt.Errorf("reference server: %w", err)
	}
	upstream, err := readServer(response, responseHost, responsePort, responseCert)
	if err != nil {
		return err
	}
	t := &tally{}
	b, err := bridgeTo(ctx, upstream, t)
	if err != nil {
		return err
	}
	err = writeMessage(os.Stdout, appendServer(response, b.address(), responseHost, responsePort, responseCert))
	if err == nil {
		<-ctx.Done()
	}
	b.close()
	return errors.Join(err, t.store(tallies))
}

// startServer starts a server of the suite and returns its response.
func startServer(cmd *exec.Cmd, request []byte) ([]byte, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	if err := errors.Join(writeMessage(in, request), in.Close()); err != nil {
		return nil, err
	}
	return readMessage(out)
}

// child is a program of the suite that ends with ctx.
func child(ctx context.Context, program string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program) //nolint:gosec // a program of the suite, which make built
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = childGrace
	return cmd
}

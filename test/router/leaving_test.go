package router_test

import (
	"bytes"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// slowRoad is a listener whose connections keep what is written to them, as a network does, until it is open.
type slowRoad struct {
	net.Listener

	open chan struct{}
	mu   sync.Mutex
	busy bool // what is written from now on is kept
	ways sync.WaitGroup
}

func (l *slowRoad) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &roadConn{Conn: conn, road: l}, nil
}

// roadConn is one of its connections. What is kept is sent when the road is open, and then the connection is closed if it is to be.
type roadConn struct {
	net.Conn

	road *slowRoad
	kept bytes.Buffer // guarded by the road's mu
	way  sync.Once
}

func (c *roadConn) Write(p []byte) (int, error) {
	c.road.mu.Lock()
	defer c.road.mu.Unlock()
	if !c.road.busy {
		return c.Conn.Write(p)
	}
	return c.kept.Write(p)
}

func (c *roadConn) Close() error {
	c.way.Do(func() {
		c.road.ways.Go(func() {
			<-c.road.open
			c.road.mu.Lock()
			defer c.road.mu.Unlock()
			_ = c.SetWriteDeadline(time.Time{}) // whoever closes it over TLS has it pass
			_, _ = c.Conn.Write(c.kept.Bytes())
			_ = c.Conn.Close()
		})
	})
	return nil
}

// What a plugin answered before it left, and what is still on the way to the host, reaches who called.
func TestRouter_WhatALeavingPluginAnsweredArrives(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	road := &slowRoad{Listener: hosttest.Listen(t), open: make(chan struct{})}
	t.Cleanup(road.ways.Wait)
	opened := sync.OnceFunc(func() { close(road.open) })
	defer opened()
	plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Listener = road
		c.Services = []connectplugin.PluginService{{
			Type: "logger", Version: "1.0.0", Path: "/raw.v1.Raw/",
			Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				road.mu.Lock()
				defer road.mu.Unlock()
				road.busy = true
			}),
		}}
	})
	api := host.Enrol(t, "api", hosttest.Requiring("logger"))
	runtimeID := plugin.Client.RuntimeID()
	answered := make(chan int, 1)
	go func() {
		answered <- send(t, api, http.MethodPost, host.URL+"/services/logger/"+runtimeID+"/raw.v1.Raw/Call", bytes.NewReader(nil))
	}()
	hosttest.Eventually(t, "the call", func() bool {
		road.mu.Lock()
		defer road.mu.Unlock()
		return road.busy
	})
	plugin.Stop(t)
	hosttest.Eventually(t, "the end of its identity", func() bool { return len(host.Plugins()) == 1 })
	opened()
	if status := <-answered; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

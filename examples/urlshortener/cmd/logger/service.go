package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	loggerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1"
)

const (
	keptEntries = 1000
	fileMode    = 0o600

	// callerHeader is where the host names the plugin that calls.
	callerHeader = "X-Plugin-Caller-Id"
)

// logService appends entries to a file, one JSON object a line, and keeps the
// newest in memory.
type logService struct {
	mu     sync.Mutex
	file   *os.File
	newest []*loggerv1.Entry
	total  int64
}

func openLog(path string) (*logService, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, fileMode) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}

	return &logService{file: file}, nil
}

// Close closes the file.
func (s *logService) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()

	_ = s.file.Close()
}

// Log takes entries.
func (s *logService) Log(ctx context.Context, req *loggerv1.LogRequest) (*loggerv1.LogResponse, error) {
	entries := req.GetEntries()

	if call, ok := connect.CallInfoForHandlerContext(ctx); ok {
		for _, e := range entries {
			e.From = call.RequestHeader().Get(callerHeader)
		}
	}

	lines, err := encode(entries)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if _, err := s.file.Write(lines); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}

	s.total += int64(len(entries))

	s.newest = append(s.newest, entries...)
	if over := len(s.newest) - keptEntries; over > 0 {
		s.newest = slices.Delete(s.newest, 0, over)
	}

	return &loggerv1.LogResponse{}, nil
}

// Tail returns the newest entries.
func (s *logService) Tail(_ context.Context, req *loggerv1.TailRequest) (*loggerv1.TailResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	n := min(max(int(req.GetEntries()), 0), len(s.newest))
	resp := &loggerv1.TailResponse{Total: s.total}

	for _, e := range s.newest[len(s.newest)-n:] {
		resp.Entries = append(resp.Entries, proto.CloneOf(e))
	}

	return resp, nil
}

// encode writes one JSON object a line. JSON escapes what is in an entry, so none
// can pretend to be two.
func encode(entries []*loggerv1.Entry) ([]byte, error) {
	var lines bytes.Buffer

	out := json.NewEncoder(&lines)
	out.SetEscapeHTML(false)

	for _, e := range entries {
		line := map[string]any{
			"time": e.GetTime().AsTime(), "level": e.GetLevel(), "message": e.GetMessage(), "fields": e.GetFields(), "from": e.GetFrom(),
		}
		if err := out.Encode(line); err != nil {
			return nil, fmt.Errorf("encode: %w", err)
		}
	}

	return lines.Bytes(), nil
}

package side

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Usage is what a process has.
type Usage struct {
	Descriptors int    `json:"descriptors"`
	Sockets     int    `json:"sockets"`   // among the descriptors
	Processes   int    `json:"processes"` // that it started, and theirs
	Files       int    `json:"files"`     // in its directory for temporary files
	Goroutines  int    `json:"goroutines"`
	Heap        uint64 `json:"heap"` // bytes after a collection
}

// same compares what is counted.
func (u Usage) same(v Usage) bool {
	u.Heap, v.Heap = 0, 0
	return u == v
}

func count() (Usage, error) {
	var u Usage
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return u, fmt.Errorf("descriptors: %w", err)
	}
	for _, e := range open {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			u.Descriptors++
			if strings.HasPrefix(target, "socket:") {
				u.Sockets++
			}
		}
	}
	err = filepath.WalkDir(os.TempDir(), func(_ string, _ fs.DirEntry, err error) error {
		u.Files++
		return err
	})
	if err != nil {
		return u, fmt.Errorf("files: %w", err)
	}
	u.Processes = len(descendants())
	u.Goroutines = runtime.NumGoroutine()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.Heap = m.HeapAlloc
	return u, nil
}

// children are the plugins that this process has started: its child processes that are no
// shells.
func children() []int {
	var pids []int
	for pid, parent := range parents() {
		name, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if parent == os.Getpid() && strings.TrimSpace(string(name)) != "sh" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// descendants are all processes that come of this one.
func descendants() []int {
	of := parents()
	var pids []int
	for pid := range of {
		for at := of[pid]; at > 1; at = of[at] {
			if at == os.Getpid() {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// parents returns the parent of each process.
func parents() map[int]int {
	of := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		if i := bytes.LastIndexByte(stat, ')'); i >= 0 { // the name before may hold anything
			if fields := strings.Fields(string(stat[i+1:])); len(fields) > 1 {
				of[pid], _ = strconv.Atoi(fields[1])
			}
		}
	}
	return of
}

// memoryOf returns the memory of a process, with its share of what several have: Pss.
func memoryOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			const kib = 1024
			return kb * kib, err //nolint:wrapcheck // the kernel writes numbers
		}
	}
	return 0, fmt.Errorf("memory: no Pss of process %d", pid)
}

package procgroup

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// guardScript keeps the list of groups and control groups that it is told of, and kills them
// when its input ends. Whoever wrote the input has been killed then, or had nothing left to
// write. A control group can be removed once the last of it is gone.
const guardScript = `trap '' HUP INT TERM QUIT
groups=' '
while read -r op id; do
  case $op in
  +) groups="$groups$id " ;;
  -) groups="${groups%% "$id" *} ${groups#* "$id" }" ;;
  esac
done
set -f
exec 2>/dev/null
for id in $groups; do
  case $id in
  /*) echo 1 >"$id/cgroup.kill" ;;
  *) kill -s KILL -- "-$id" ;;
  esac
done
for id in $groups; do
  case $id in
  /*) for try in 1 2 3 4 5; do rmdir "$id" && break; sleep 1; done ;;
  esac
done
`

// guardWait is how long a guard may take to read a line. One that does not is replaced.
const guardWait = time.Second

// guardPause is the least time between two starts of a guard that something kills, or that cannot start.
const guardPause = time.Second

// guardShell runs the script.
const guardShell = "/bin/sh"

// Guard is a small process that outlives this one, should it be killed, and kills the groups
// of all processes that were running. The system alone ends only the processes themselves
// then, not what they started. It starts before the first of them, and again where something
// killed it. The zero value is ready; it is safe for concurrent use. End it with Close.
type Guard struct {
	watches sync.WaitGroup // of guards that run

	mu     sync.Mutex
	pipe   *os.File // nil while it does not run
	proc   *os.Process
	gone   <-chan struct{}     // closed when it has ended
	begun  time.Time           // the last time that it was to start
	again  *time.Timer         // starts it again; nil while nobody has to
	err    error               // why it does not run
	groups map[string]struct{} // numbers of groups, paths of control groups
	closed bool
}

// Err says why there is no guard, nil if there is one or none was needed yet. The next process asks for one again, and so
// does time while there is something to guard.
func (g *Guard) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Close ends the guard and waits for its end. What is still running loses its guard, and is
// not killed: whoever closes the guard ends the processes first.
func (g *Guard) Close() {
	g.close()
	g.watches.Wait()
}

func (g *Guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.groups {
		g.tellLocked('-', id)
	}
	g.closed = true
	if g.again != nil {
		g.again.Stop() // or finds out that the guard is closed
	}
	g.endLocked(false)
}

func (g *Guard) add(group string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readyLocked()
	if g.groups == nil {
		g.groups = map[string]struct{}{}
	}
	g.groups[group] = struct{}{}
	g.tellLocked('+', group)
}

// ready starts the guard, so that it is there before the first process is: that may have started others by the time
// that a guard takes to start.
func (g *Guard) ready() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readyLocked()
}

// readyLocked starts the guard where there is none: what was in its way, such as too few descriptors, may be over.
func (g *Guard) readyLocked() {
	if g.pipe == nil && !g.closed {
		g.beginLocked()
	}
}

// beginLocked starts the guard, or sees to it that somebody tries again.
func (g *Guard) beginLocked() {
	g.begun = time.Now()
	if g.err = g.startLocked(); g.err != nil {
		g.reviveLocked()
	}
}

// reviveLocked has the guard started again, at once where the last start was long ago.
func (g *Guard) reviveLocked() {
	if g.again == nil && !g.closed {
		g.again = time.AfterFunc(time.Until(g.begun.Add(guardPause)), g.revive)
	}
}

func (g *Guard) revive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.again = nil
	if len(g.groups) > 0 { // else the next process asks for it
		g.readyLocked()
	}
}

// watch waits for the end of a guard, which comes early where something killed it.
func (g *Guard) watch(proc *os.Process, gone chan<- struct{}) {
	_, _ = proc.Wait()
	close(gone)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proc != proc { // whoever ended it has seen to the rest
		return
	}
	g.endLocked(false)
	g.reviveLocked()
}

func (g *Guard) remove(group string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.groups, group)
	g.tellLocked('-', group)
}

// tellLocked writes one line, which is shorter than what a pipe takes in one piece. A guard
// that was killed is started again.
func (g *Guard) tellLocked(op byte, group string) {
	if g.pipe == nil {
		return
	}
	_ = g.pipe.SetWriteDeadline(time.Now().Add(guardWait))
	if _, err := g.pipe.WriteString(string(op) + " " + group + "\n"); err == nil {
		return
	}
	g.endLocked(true)
	g.beginLocked()
}

// startLocked starts the guard and tells it of the groups that there are.
func (g *Guard) startLocked() error {
	in, out, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer closeFiles(in)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		closeFiles(out)
		return fmt.Errorf("guard: %w", err)
	}
	defer closeFiles(null)
	proc, err := startGuard([]*os.File{in, null, null})
	if err != nil {
		closeFiles(out)
		return fmt.Errorf("guard: %w", err)
	}
	gone := make(chan struct{})
	g.pipe, g.proc, g.gone = out, proc, gone
	g.watches.Go(func() { g.watch(proc, gone) })
	_ = g.pipe.SetWriteDeadline(time.Now().Add(guardWait))
	for id := range g.groups {
		_, _ = fmt.Fprintf(g.pipe, "+ %s\n", id)
	}
	return nil
}

func (g *Guard) endLocked(stuck bool) {
	if g.pipe == nil {
		return
	}
	if stuck { // before the pipe ends: one that wakes and sees that end kills every group
		_ = g.proc.Kill()
		<-g.gone
	}
	closeFiles(g.pipe)
	<-g.gone
	g.pipe, g.proc, g.gone = nil, nil, nil
}

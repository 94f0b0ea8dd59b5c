#!/usr/bin/env bash
# Guess: a member of a group of memberlist that crashed, as a container does, and is started again at another address under its name, is a member again when
# it has joined, at the latest when the others have it as dead; or Join returns an error.
# Seen: with github.com/hashicorp/memberlist v0.7.0 as it comes (DeadNodeReclaimTime 0) the others take the new address for a conflict and keep the name as
# that of the dead one. Join returns 1 and no error, and the member that came back has all others in its list, itself too, while they do not have it: it is
# told of everything and found by nobody. Only the others' log and ConflictDelegate say so. A member that left (Leave) before it was ended comes back at once,
# as does one that crashed where the others have a DeadNodeReclaimTime that has passed.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/hashicorp/memberlist v0.7.0
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type conflicts struct{ atomic.Int64 }

func (c *conflicts) NotifyConflict(_, _ *memberlist.Node) { c.Add(1) }

func start(name string, reclaim time.Duration, told *conflicts) *memberlist.Memberlist {
	config := memberlist.DefaultLocalConfig()
	config.Name, config.BindAddr, config.BindPort, config.AdvertisePort = name, "127.0.0.1", 0, 0
	config.DeadNodeReclaimTime, config.Conflict, config.LogOutput = reclaim, told, io.Discard
	return must(memberlist.Create(config))
}

func names(m *memberlist.Memberlist) string {
	var all []string
	for _, node := range m.Members() {
		all = append(all, node.Name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// again is what the members see of one that ended and came back under its name, at another port.
func again(how string, leave bool, reclaim time.Duration) string {
	told := &conflicts{}
	one, two, crashes := start("one", reclaim, told), start("two", reclaim, told), start("crashes", reclaim, told)
	address := one.LocalNode().Address()
	must(two.Join([]string{address}))
	must(crashes.Join([]string{address}))
	for two.NumMembers() < 3 {
		time.Sleep(50 * time.Millisecond)
	}
	if leave {
		if err := crashes.Leave(5 * time.Second); err != nil {
			panic(err)
		}
	}
	crashes.Shutdown()
	for one.NumMembers() > 2 || two.NumMembers() > 2 {
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	back := start("crashes", reclaim, told)
	n, err := back.Join([]string{address})
	time.Sleep(5 * time.Second)
	line := fmt.Sprintf("%s: Join %d %v, it sees [%s], the others [%s] [%s], conflict told %t", how, n, err, names(back), names(one), names(two), told.Load() > 0)
	for _, m := range []*memberlist.Memberlist{one, two, back} {
		m.Shutdown()
	}
	return line
}

func main() {
	seen := make([]string, 3)
	var all sync.WaitGroup
	all.Go(func() { seen[0] = again("crashed", false, 0) })
	all.Go(func() { seen[1] = again("left", true, 0) })
	all.Go(func() { seen[2] = again("crashed, with a time to reclaim", false, time.Second) })
	all.Wait()
	want := []string{
		"crashed: Join 1 <nil>, it sees [crashes one two], the others [one two] [one two], conflict told true",
		"left: Join 1 <nil>, it sees [crashes one two], the others [crashes one two] [crashes one two], conflict told false",
		"crashed, with a time to reclaim: Join 1 <nil>, it sees [crashes one two], the others [crashes one two] [crashes one two], conflict told false",
	}
	for _, line := range seen {
		fmt.Println(line)
	}
	if !slices.Equal(seen, want) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/hashicorp/memberlist
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding

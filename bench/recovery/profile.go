package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"syscall"
)

// profile writes profiles of the processor, each to a file of its own, which begins with
// prefix: another one with each SIGUSR1, and the last when stop is called.
func profile(prefix string) (stop func()) {
	next, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(next, syscall.SIGUSR1)
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			if _, ok := profileOnce(prefix+"-"+strconv.Itoa(n)+".cpu", next); !ok {
				return
			}
		}
	}()
	return func() {
		signal.Stop(next)
		close(next)
		<-done
	}
}

// profileOnce writes one profile, until something comes.
func profileOnce(path string, until <-chan os.Signal) (os.Signal, bool) {
	file, err := os.Create(path) //nolint:gosec // the user named the directory
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
	}
	got, ok := <-until
	pprof.StopCPUProfile()
	_ = file.Close()
	return got, ok
}

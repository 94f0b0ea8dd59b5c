package h2serve

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	mostResting = 64                     // goroutines that wait for work
	dismissal   = 200 * time.Millisecond // how often half of them are sent home
)

// crew is the goroutines of a server that wait for work.
type crew struct {
	tasks   sync.WaitGroup // every goroutine of the server
	jobs    chan job       // for whoever rests
	resting atomic.Int32
	timed   atomic.Bool // dismiss is due
}

// job is what there is to do on a connection: to serve a request, to leave one that was served, to
// write what is pending, or, where it is none of that, to read. Without a connection it is to go
// home.
type job struct {
	c     *conn
	st    *stream
	leave bool
	write bool
}

// give gives a job to a goroutine that rests, or to a new one. It waits for nobody.
func (s *Server) give(j job) {
	select {
	case s.jobs <- j:
	default:
		s.tasks.Go(func() { s.work(j) })
	}
}

// work does a job, and others after it. Whoever reads a request serves it, when somebody else
// reads on.
func (s *Server) work(j job) {
	for more := true; more && j.c != nil; j, more = s.next() {
		switch {
		case j.write:
			j.c.write()
		case j.leave:
			j.st.lasting.leave()
		case j.st != nil:
			j.st.serve()
		default:
			if st := j.c.read(); st != nil {
				s.readOn(j.c)
				st.serve()
			}
		}
	}
}

// readOn has somebody else read on. On a connection that may rest for long that is a goroutine which has served
// nobody: a reader's stack is in use while it waits, so that one which has grown for a handler would stay so.
func (s *Server) readOn(c *conn) {
	j := job{c: c}
	if c.calm {
		s.tasks.Go(func() { s.work(j) })
		return
	}
	s.give(j)
}

// next waits for a job. It reports false where enough others do, and when the server has ended.
func (s *Server) next() (job, bool) {
	defer s.resting.Add(-1)
	if s.resting.Add(1) > mostResting {
		return job{}, false
	}
	s.dismissLater()
	select {
	case j := <-s.jobs:
		return j, true
	case <-s.life.Done():
		return job{}, false
	}
}

// dismissLater has half of those that rest go home in a while.
func (s *Server) dismissLater() {
	if s.timed.CompareAndSwap(false, true) {
		time.AfterFunc(dismissal, s.dismiss)
	}
}

// dismiss sends half of those that rest home: a busy server misses few, a quiet one keeps none.
func (s *Server) dismiss() {
	for range (s.resting.Load() + 1) / 2 {
		select {
		case s.jobs <- job{}:
		default:
		}
	}
	s.timed.Store(false)
	if s.resting.Load() > 0 && s.life.Err() == nil {
		s.dismissLater()
	}
}

package h2serve

// job is what there is to do on a connection: to serve a request, to write what is pending, or,
// where it is neither, to read.
type job struct {
	c     *conn
	st    *stream
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
	for more := true; more; j, more = s.next() {
		switch {
		case j.write:
			j.c.write()
		case j.st != nil:
			j.st.serve()
		default:
			if st := j.c.read(); st != nil {
				s.give(job{c: j.c})
				st.serve()
			}
		}
	}
}

// next waits for a job. It reports false where enough others do, and when the server has ended.
func (s *Server) next() (job, bool) {
	defer s.resting.Add(-1)
	if s.resting.Add(1) > mostResting {
		return job{}, false
	}
	select {
	case j := <-s.jobs:
		return j, true
	case <-s.life.Done():
		return job{}, false
	}
}

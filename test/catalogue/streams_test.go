package catalogue_test

import (
	"slices"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// watch opens a watch, sometimes with numbers that are made up.
func (d *modelDriver) watch() {
	req := &connectpluginv1.WatchServiceRequest{ServiceType: pick(d, modelTypes)}
	switch d.random.IntN(8) {
	case 0:
		req.Epoch = "made up"
	case 1:
		req.ResumeAfter = 1 << 40
		if k := d.model.kinds[req.GetServiceType()]; k != nil {
			req.Epoch = d.epochs[k.epoch]
		}
	}
	d.open("watch", req)
}

// resume opens a watch where one that was cut stood, with any identity.
func (d *modelDriver) resume() {
	if len(d.cut) == 0 {
		return
	}
	w := pick(d, d.cut)
	if d.open("resume", &connectpluginv1.WatchServiceRequest{ServiceType: w.serviceType, ResumeAfter: w.seen, Epoch: w.epoch}) {
		d.cut = slices.DeleteFunc(d.cut, func(x *modelWatch) bool { return x == w })
	}
}

func (d *modelDriver) open(what string, req *connectpluginv1.WatchServiceRequest) bool {
	d.t.Helper()
	p := d.plugin()
	if p == nil {
		return false
	}
	w := &modelWatch{plugin: p, serviceType: req.GetServiceType(), line: d.random.IntN(len(d.lines))}
	want := d.model.opening(w, req, d.epochs)
	err := w.open(d.t.Context(), d, req)
	if err == nil && want != 0 {
		<-w.ended
		err = w.err
	}
	if !d.same(what, err, want) {
		return false
	}
	d.eventually("the first event of a watch", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.first == nil || len(w.received) > 0 || w.over()
	})
	return true
}

// over takes watches out of the model that the host ends, and looks at how they
// end.
func (d *modelDriver) over(code connect.Code, end func()) {
	d.t.Helper()
	before, lived := slices.Clone(d.model.watches), slices.Clone(d.model.plugins)
	end()
	for _, p := range lived {
		if !d.model.lives(p) {
			d.ended = append(d.ended, p)
		}
	}
	for _, w := range before {
		if slices.Contains(d.model.watches, w) {
			continue
		}
		w.late = w.isStalled()
		w.stall(false)
		d.gone(w)
		w.late = w.late || time.Since(d.began) > time.Second // the host cuts off who takes longer than two
		got := hosttest.CodeOrZero(w.err)
		// Both are true of a plugin that policy does not know any more.
		either := code == connect.CodeNotFound && got == connect.CodeUnauthenticated && !d.model.lives(w.plugin)
		if got != code && !either && !w.late {
			d.t.Errorf("watch of %s by %s ended with %v, want %v", w.serviceType, w.plugin.id, w.err, code)
		}
	}
	d.settle()
}

// gone waits for the end of a stream and keeps its place.
func (d *modelDriver) gone(w *modelWatch) {
	d.t.Helper()
	d.eventually("the end of a watch", w.over)
	w.cancel()
	if wrong := w.check(d); wrong != "" {
		d.t.Error(wrong)
	}
	d.cut = append(d.cut, w)
	if len(d.cut) > 20 {
		d.cut = d.cut[1:]
	}
}

// settle waits until the host knows that the streams are gone.
func (d *modelDriver) settle() {
	d.t.Helper()
	d.eventually("the host knows of the end of a watch", func() bool {
		return d.host.Usage().Watches == len(d.model.watches)
	})
}

// cutLine breaks a connection with all watches that use it.
func (d *modelDriver) cutLine() {
	line := d.random.IntN(len(d.lines))
	d.lines[line].proxy.Cut()
	d.connect(line)
	d.lose(func(w *modelWatch) bool { return w.line == line })
}

// leave ends one watch politely.
func (d *modelDriver) leave() {
	if len(d.model.watches) == 0 {
		return
	}
	w := pick(d, d.model.watches)
	w.cancel()
	d.lose(func(x *modelWatch) bool { return x == w })
}

// lose takes watches out that the client or the network ended. What they were
// about to get is lost with them.
func (d *modelDriver) lose(match func(*modelWatch) bool) {
	d.t.Helper()
	before := slices.Clone(d.model.watches)
	for _, w := range before {
		if match(w) {
			w.stall(false)
			d.gone(w)
		}
	}
	d.model.endWatches(match)
	d.settle()
}

func (d *modelDriver) stall() {
	if len(d.model.watches) > 0 {
		pick(d, d.model.watches).stall(true)
	}
}

func (d *modelDriver) readOn() {
	for _, w := range d.model.watches {
		if d.random.IntN(2) == 0 {
			w.stall(false)
		}
	}
}

// converge waits until every watcher that reads knows the last state.
func (d *modelDriver) converge() {
	d.t.Helper()
	for _, w := range d.model.watches {
		if w.isStalled() {
			continue
		}
		d.eventually("a watcher knows the last state", func() bool {
			if wrong := w.check(d); wrong != "" {
				d.t.Fatal(wrong)
			}
			return w.first == nil && w.seen == uint64(len(w.kind.log)) || w.over()
		})
	}
}

// finish lets everybody come back and read to the end, and the host end.
func (d *modelDriver) finish() {
	d.t.Helper()
	d.checkCoverage()
	for range 4 * len(d.cut) {
		d.resume()
	}
	for _, w := range d.model.watches {
		w.stall(false)
	}
	d.converge()
	d.compare()
	d.began = time.Now()
	d.host.Stop(d.t)
	d.over(connect.CodeUnavailable, func() { d.model.endWatches(func(*modelWatch) bool { return true }) })
	if open := d.host.Usage().Watches; open != 0 {
		d.t.Errorf("%d watches are left", open)
	}
}

package connectplugin

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/bootstrap"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/procgroup"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// reasonExited says that the process of an identity ended.
const reasonExited tokenstore.Reason = "process ended"

// Attribute keys of the log.
const (
	keyPlugin   = "plugin"
	keyPid      = "pid"
	keyPath     = "path"
	keyChecksum = "checksum"
	keyStream   = "stream"
	keyLine     = "line"
	keyDropped  = "dropped"
)

// instance returns the process as the launcher sees it, and watches for its end.
func (l *processLaunch) instance() *instance {
	exited := make(chan struct{})
	l.exited = exited
	renewing, stopRenewing := context.WithCancel(context.Background())
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		l.tls.renewOver(renewing, l.pipe)
	}()
	go func() {
		<-l.proc.Done()
		stopRenewing()
		_ = l.pipe.SetWriteDeadline(time.Unix(1, 0)) // nobody reads any more
		<-renewed
		l.cleanUp()
		close(exited)
	}()
	i := &instance{
		pid: l.proc.Pid(), exited: exited, exit: l.exit, begun: time.Now(),
		runtimeID: l.runtimeID,
		stop: func(ctx context.Context, reason string) {
			l.stop(ctx, reason)
			<-exited
		},
		release: func(old string) error { return l.platform.release(l.launch, old) },
	}
	i.result = l.platform.result(l.runtimeID, func() { i.stop(context.Background(), "cleanup") })
	return i
}

func (l *processLaunch) runtimeID() string {
	if id := l.launch.Current(); id != nil {
		return id.RuntimeID()
	}
	return ""
}

// stop ends the process in steps.
func (l *processLaunch) stop(ctx context.Context, reason string) {
	l.stopping.Do(func() {
		l.noteAsked()
		grace := l.spec.StopGrace
		err := l.proc.Stop(ctx, procgroup.Steps{
			Ask: func(ctx context.Context) error { return l.platform.askToStop(ctx, l.runtimeID(), grace, reason) },
			// The plugin tells the host that it leaves after its grace.
			AskWait: grace + leaveWait, TermWait: grace,
		})
		if err != nil {
			l.platform.log().Error("a plugin does not end", keyPlugin, l.spec.Name, keyPid, l.proc.Pid(), keyError, err)
		}
	})
}

func (l *processLaunch) noteAsked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = true
}

// exit says how the process ended.
func (l *processLaunch) exit() PluginExit {
	e := l.proc.Exit()
	l.mu.Lock()
	asked := l.asked
	l.mu.Unlock()
	out := PluginExit{
		Name: l.spec.Name, RuntimeID: l.runtimeID(), Pid: l.proc.Pid(), At: e.At, Reason: e.String(),
		ExitCode: -1, Requested: asked, Output: e.Tail,
	}
	if e.State != nil {
		out.ExitCode = e.State.ExitCode()
	}
	return out
}

// message returns the first message of a launch, with its certificate.
func (l *LaunchTLS) message() (*bootstrap.Message, error) {
	m, err := l.renewal()
	if err != nil {
		return nil, err
	}
	if m.Key, err = certs.EncodeKey(l.key); err != nil {
		return nil, fmt.Errorf("key of %s: %w", l.id, err)
	}
	m.CA = l.authority.ca.CertificatePEM()
	return m, nil
}

// renewal returns the certificate that is current now.
func (l *LaunchTLS) renewal() (*bootstrap.Message, error) {
	cert, err := l.source.Certificate(time.Now())
	if err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	return &bootstrap.Message{Certificate: certs.EncodeCertificates(cert.Certificate...)}, nil
}

// tellWait is how long a message to a plugin may wait for room in the pipe.
const tellWait = 10 * time.Second

// tell writes one message to the plugin.
func (l *LaunchTLS) tell(pipe *os.File, m *bootstrap.Message) error {
	_ = pipe.SetWriteDeadline(time.Now().Add(tellWait))
	if err := bootstrap.Write(io.Writer(pipe), m); err != nil {
		return fmt.Errorf("certificate of %s: %w", l.id, err)
	}
	return nil
}

// renewOver sends the plugin a new certificate whenever one is due, until ctx ends.
func (l *LaunchTLS) renewOver(ctx context.Context, pipe *os.File) {
	for wait := time.Until(l.source.RenewAt()); backoff.Wait(ctx, wait); {
		m, err := l.renewal()
		if err == nil {
			err = l.tell(pipe, m)
		}
		wait = launchRetry
		switch {
		case err != nil:
			l.authority.logger.Warn("the certificate of a launch is not renewed", keySubject, l.Identity(), keyError, err)
		default:
			if wait = time.Until(l.source.RenewAt()); wait <= 0 {
				return // it ends with the authority, no later one can follow
			}
		}
	}
}

// credentialOf looks up a user and a group by name or number. Empty names are those of the
// host.
func credentialOf(name, group string) (*procgroup.Credential, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // documented
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("user %q is not known", name)
		}
	}
	gid := u.Gid
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			if g, err = user.LookupGroupId(group); err != nil {
				return nil, fmt.Errorf("group %q is not known", group)
			}
		}
		gid = g.Gid
	}
	const bits = 32
	uidNumber, errUID := strconv.ParseUint(u.Uid, 10, bits)
	gidNumber, errGID := strconv.ParseUint(gid, 10, bits)
	if errUID != nil || errGID != nil {
		return nil, fmt.Errorf("user %q has no number on this system", name)
	}
	return &procgroup.Credential{UID: uint32(uidNumber), GID: uint32(gidNumber)}, nil
}

// logOutput passes what a plugin prints on to the log, tagged.
func (p *Platform) logOutput(name string) func(procgroup.Line) {
	log := p.log().With(keyPlugin, name)
	return func(l procgroup.Line) {
		attrs := []any{keyStream, string(l.Stream)}
		if l.Dropped > 0 {
			attrs = append(attrs, keyDropped, l.Dropped)
		}
		log.Info("plugin prints", append(attrs, keyLine, printable(l.Text))...)
	}
}

// printableLines joins lines for an error.
func printableLines(lines []string) string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = printable(l)
	}
	return strings.Join(out, " ⏎ ")
}

package connectplugin

import (
	"context"
	"time"
)

// renewAdopted gives an adopted plugin a new token before the current one ends.
func (p *Platform) renewAdopted(ctx context.Context, a *adoption) {
	for failures := 0; ; {
		wait := time.Duration(float64(time.Until(a.id.ExpiresAt())) * renewAfter)
		if failures > 0 {
			wait = backoffDelay(failures)
		}
		if !waitFor(ctx, max(wait, renewFloor)) {
			return
		}
		if err := p.renewOnce(ctx, a); err != nil {
			failures++
			p.log().Warn("the token of an adopted plugin is not renewed", keyRuntimeID, a.id.RuntimeID(), keyError, err)
			continue
		}
		failures = 0
	}
}

func (p *Platform) renewOnce(ctx context.Context, a *adoption) error {
	hostURL, err := p.hostURL("")
	if err != nil {
		return err
	}
	a.mu.Lock()
	current, untold := a.token, a.untold
	a.mu.Unlock()
	if !untold {
		if _, current, err = p.hub().store.Renew(a.id.RuntimeID(), current, a.id.Fingerprint()); err != nil {
			return err
		}
		a.mu.Lock()
		a.token, a.untold = current, true
		a.mu.Unlock()
	}
	client := NewPluginIdentityClient(pluginBase, p.callPlugin(a.id.RuntimeID()))
	if err := client.set(ctx, a.id.RuntimeID(), current, hostURL, a.id.ExpiresAt()); err != nil {
		return err
	}
	a.mu.Lock()
	a.untold = false
	a.mu.Unlock()
	return nil
}

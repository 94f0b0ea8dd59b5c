package connectplugin

import (
	"errors"
	"fmt"
	"math"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// Errors of the version negotiation, to be told apart with [errors.Is].
var (
	errVersionRange    = errors.New("application versions are no range")
	errNoCommonVersion = errors.New("no common application version")
)

// versionRange is a range of application versions, both ends included.
type versionRange struct{ min, max int32 }

// versionsBetween returns the range between two configured versions.
func versionsBetween(lowest, highest int) versionRange {
	return versionRange{min: wireVersion(lowest), max: wireVersion(highest)}
}

// requestedVersions returns the versions that a request offers. An end that is
// zero is the exact version of app_protocol_version, the only one that a peer of
// the first wire version names.
func requestedVersions(req *connectpluginv1.HandshakeRequest) versionRange {
	r := versionRange{min: req.GetMinProtocolVersion(), max: req.GetMaxProtocolVersion()}
	if r.min == 0 {
		r.min = req.GetAppProtocolVersion()
	}
	if r.max == 0 {
		r.max = req.GetAppProtocolVersion()
	}
	return r
}

// highestCommon returns the highest version that is in both ranges. It wraps
// [errVersionRange] if one is no range of versions from zero, and
// [errNoCommonVersion] if they share none.
func (r versionRange) highestCommon(peer versionRange) (int32, error) {
	for _, v := range []versionRange{r, peer} {
		if v.min < 0 || v.min > v.max {
			return 0, fmt.Errorf("%w: %d to %d", errVersionRange, v.min, v.max)
		}
	}
	lowest, highest := max(r.min, peer.min), min(r.max, peer.max)
	if lowest > highest {
		return 0, fmt.Errorf("%w: %d to %d are offered, %d to %d are spoken here", errNoCommonVersion, peer.min, peer.max, r.min, r.max)
	}
	return highest, nil
}

// negotiateVersion returns the application version for the answer to req: the
// highest that both sides speak. The error is fit for the peer.
func negotiateVersion(req *connectpluginv1.HandshakeRequest, own versionRange) (int32, error) {
	return own.highestCommon(requestedVersions(req))
}

// deprecationWarning returns what the host tells a peer with which it agreed on a
// deprecated version, nothing where the version is not.
func deprecationWarning(version, below int32) string {
	if version < below {
		return fmt.Sprintf("application version %d is deprecated on this host; speak %d or later", version, below)
	}
	return ""
}

// wireVersion returns a configured version as it goes over the wire.
func wireVersion(v int) int32 {
	return int32(max(math.MinInt32, min(v, math.MaxInt32)))
}

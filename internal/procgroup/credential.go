package procgroup

import (
	"fmt"
	"os/user"
	"strconv"
)

// LookupCredential looks up a user and a group by name or number. An empty user is that of
// this process, which needs no credential: nil. An empty group is the user's primary one.
func LookupCredential(name, group string) (*Credential, error) {
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
	return &Credential{UID: uint32(uidNumber), GID: uint32(gidNumber)}, nil
}

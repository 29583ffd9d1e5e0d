package cache

import (
	"context"
	"errors"

	"golang.org/x/sys/windows"
)

// keyringReady finds nothing to ask beforehand: the Credential Manager is part
// of the login.
func keyringReady(context.Context) error { return nil }

func keyringReason(err error) KeyringReason {
	// A login over the network, as OpenSSH's, has no credentials
	// (https://github.com/danieljoos/wincred/issues/7).
	if errors.Is(err, windows.ERROR_NO_SUCH_LOGON_SESSION) {
		return KeyringAbsent
	}
	return KeyringFailed
}

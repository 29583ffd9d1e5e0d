package cache

import (
	"context"
	"errors"
	"os/exec"
)

// keyringReady finds nothing to ask beforehand: the Keychain is always there.
func keyringReady(context.Context) error { return nil }

// keyringReason reads the exit status of security(1), which is the last byte of
// an OSStatus.
func keyringReason(err error) KeyringReason {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return KeyringFailed
	}
	switch exit.ExitCode() {
	case 36, 51, 128: // errSecInteractionNotAllowed (over SSH), errSecAuthFailed, errSecUserCanceled
		return KeyringLocked
	case 37, 50: // errSecNoDefaultKeychain, errSecNoSuchKeychain
		return KeyringAbsent
	}
	return KeyringFailed
}

//go:build !windows && !darwin

package cache

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	secretsName    = "org.freedesktop.secrets"
	secretsPath    = dbus.ObjectPath("/org/freedesktop/secrets")
	secretsLogin   = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	secretsService = "org.freedesktop.Secret.Service"
	secretsPrompt  = "org.freedesktop.Secret.Prompt"
	noObject       = dbus.ObjectPath("/")
)

// keyringReady makes sure that there is a Secret Service and that its keyring
// is unlocked, and unlocks it if that can be done before ctx ends: go-keyring
// would wait for a prompt for ever, and would start a D-Bus of its own where
// there is none.
//
// The connection is a private one: closing it ends the prompt, too.
func keyringReady(ctx context.Context) error {
	bus, err := dbus.SessionBusPrivateNoAutoStartup(dbus.WithContext(ctx))
	if err == nil {
		defer bus.Close()
		err = bus.Auth(nil)
	}
	if err == nil {
		err = bus.Hello()
	}
	switch {
	case ctx.Err() != nil: // it closes the connection, which is the error then
		return ctx.Err()
	case err != nil:
		return &KeyringError{Reason: KeyringAbsent, Err: err}
	}
	secrets := bus.Object(secretsName, secretsPath)
	collection, err := defaultCollection(ctx, secrets)
	if err != nil {
		return err
	}
	var unlocked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := secrets.CallWithContext(ctx, secretsService+".Unlock", 0, []dbus.ObjectPath{collection}).Store(&unlocked, &prompt); err != nil {
		return err
	}
	if prompt == noObject {
		return nil
	}
	return unlock(ctx, bus, prompt)
}

// defaultCollection finds the keyring that go-keyring uses.
func defaultCollection(ctx context.Context, secrets dbus.BusObject) (dbus.ObjectPath, error) {
	var value dbus.Variant
	if err := secrets.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, secretsService, "Collections").Store(&value); err != nil {
		return "", err
	}
	var collections []dbus.ObjectPath
	if err := value.Store(&collections); err != nil {
		return "", err
	}
	if slices.Contains(collections, secretsLogin) {
		return secretsLogin, nil
	}
	var collection dbus.ObjectPath
	if err := secrets.CallWithContext(ctx, secretsService+".ReadAlias", 0, "default").Store(&collection); err != nil {
		return "", err
	}
	if collection == noObject {
		return "", &KeyringError{Reason: KeyringAbsent, Err: errors.New("the Secret Service has no default keyring")}
	}
	return collection, nil
}

// unlock runs the prompt. It is no more than a formality for a keyring without
// a password, which is what people have who log in without one; others will
// hardly type theirs in time, and are told that the keyring is locked.
func unlock(ctx context.Context, bus *dbus.Conn, prompt dbus.ObjectPath) error {
	locked := &KeyringError{Reason: KeyringLocked}
	if err := bus.AddMatchSignalContext(ctx, dbus.WithMatchObjectPath(prompt), dbus.WithMatchInterface(secretsPrompt)); err != nil {
		return err
	}
	signals := make(chan *dbus.Signal, 1)
	bus.Signal(signals)
	if err := bus.Object(secretsName, prompt).CallWithContext(ctx, secretsPrompt+".Prompt", 0, "").Err; err != nil {
		return locked
	}
	for {
		select {
		case s := <-signals:
			if s == nil { // the connection is gone
				return locked
			}
			if s.Path != prompt || len(s.Body) == 0 {
				continue
			}
			if dismissed, ok := s.Body[0].(bool); !ok || dismissed {
				return locked
			}
			return nil
		case <-ctx.Done():
			return locked
		}
	}
}

func keyringReason(err error) KeyringReason {
	var refused dbus.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return KeyringTimedOut
	case errors.Is(err, dbus.ErrClosed), errors.Is(err, io.EOF):
		return KeyringAbsent
	case !errors.As(err, &refused):
		return KeyringFailed
	}
	switch name := strings.TrimPrefix(refused.Name, "org.freedesktop."); {
	case name == "Secret.Error.IsLocked":
		return KeyringLocked
	case name == "DBus.Error.ServiceUnknown", name == "DBus.Error.NameHasNoOwner",
		name == "DBus.Error.NoReply", name == "DBus.Error.Disconnected",
		strings.HasPrefix(name, "DBus.Error.Spawn."):
		return KeyringAbsent
	}
	return KeyringFailed
}

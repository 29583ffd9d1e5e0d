package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

func newLogout() *cobra.Command {
	o := &options{}
	var all, local bool
	c := &cobra.Command{
		Use:   "logout (--oidc-issuer-url=URL --oidc-client-id=ID | --all) [flags]",
		Short: "Revoke a session at the provider, then delete it",
		Example: `  # end the session that these flags of get-token name
  kubectl oidc-device logout --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl

  # end every session in the cache
  kubectl oidc-device logout --all

  # delete it here only: the provider is not called, and what it gave out stays valid
  kubectl oidc-device logout --local --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl`,
		RunE: func(c *cobra.Command, _ []string) error {
			return runLogout(c.Context(), o, all, local, c)
		},
	}
	o.addSessionFlags(c)
	c.Flags().BoolVar(&all, "all", false, "every session in the cache")
	c.Flags().BoolVar(&local, "local", false, "delete without calling the provider")
	return c
}

func runLogout(ctx context.Context, o *options, all, local bool, c *cobra.Command) error {
	ctx = interruptible(ctx)
	ui := newUI(c.ErrOrStderr(), o.verbose)
	if !all {
		if err := o.check(); err != nil {
			return err
		}
		err := newSession(o, ui).logout(ctx, local)
		return hintLogout(err, o)
	}
	if o.issuer != "" {
		return &usageError{message: "--all and --oidc-issuer-url contradict each other: give one"}
	}
	ids, err := cache.NewDisk(o.cacheDir).List()
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		ui.say("there are no sessions in %s", o.cacheDir)
	}
	var failed error
	for _, id := range ids {
		if err := logoutByID(ctx, *o, id, local, ui); err != nil {
			ui.warn("%v", err)
			failed = err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if failed != nil {
		return hintLogout(failed, o)
	}
	return nil
}

// logoutByID ends a session of which only the record is known.
func logoutByID(ctx context.Context, o options, id string, local bool, ui *ui) error {
	entry, err := cache.NewDisk(o.cacheDir).Load(id)
	var corrupt *cache.CorruptError
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return nil // somebody else was faster
	case errors.As(err, &corrupt):
		// There is nothing to revoke in it; logout will set it aside.
	case err != nil:
		return err
	default:
		key := entry.Key
		if o.clientID != key.ClientID {
			// A secret that was given is for that one client.
			o.secret, o.secretFile = "", ""
		}
		o.issuer, o.clientID, o.useAccessToken = key.Issuer, key.ClientID, key.AccessToken
		o.endpoints.DeviceAuthorization, o.endpoints.Token, o.endpoints.JWKS = key.Endpoints["device_authorization"], key.Endpoints["token"], key.Endpoints["jwks"]
	}
	s := newSession(&o, ui)
	s.id = id
	return s.logout(ctx, local)
}

// keptError: the provider could not be told, so the session was kept.
type keptError struct{ err error }

func (e *keptError) Error() string { return e.err.Error() }
func (e *keptError) Unwrap() error { return e.err }

func hintLogout(err error, o *options) error {
	var kept *keptError
	if errors.As(err, &kept) {
		return &hintedError{err: err, hint: "try again, or delete it here only: " + o.commandLine("logout", "local") + " --local"}
	}
	return err
}

// logout revokes and deletes the session, under its lock: a renewal at the same
// moment would bring it back.
func (s *session) logout(ctx context.Context, local bool) error {
	if s.disk == nil {
		return &usageError{message: "--token-cache-storage=none keeps no session that could be ended"}
	}
	name := fmt.Sprintf("the session of client %s at %s", s.clientID, s.issuer)
	if _, err := s.store.Load(s.id); errors.Is(err, cache.ErrNotFound) {
		s.ui.say("there is nothing to end: %s is not in %s", name, s.cacheDir)
		return nil
	}
	unlock, _, err := s.lock(ctx, func(*cache.Entry) bool { return false })
	if err != nil {
		return err
	}
	defer unlock()
	entry, err := s.load(true)
	if err != nil || entry == nil { // nil: set aside, or ended by somebody else
		return err
	}
	if !local {
		if err := s.revoke(ctx, entry); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &keptError{err: fmt.Errorf("%s could not be revoked and was kept: %w", name, err)}
		}
	}
	if err := s.store.Delete(s.id); err != nil {
		return err
	}
	s.note(func(n *cache.Notes) { n.Failure = nil })
	s.ui.say("deleted %s", name)
	if valid(entry) && (local || !entry.Key.AccessToken) {
		s.ui.say("the token that kubectl was given cannot be called back: it stays good until %s", clock(entry.TokenExpiresAt))
	}
	return nil
}

// revoke ends the refresh token, then the access token where that is what was
// kept. A provider that cannot revoke is no error: what can be done is done.
func (s *session) revoke(ctx context.Context, e *cache.Entry) error {
	client, err := s.flow(ctx)
	if err != nil {
		return err
	}
	tokens := []struct{ token, hint, name string }{{e.RefreshToken, flow.HintRefreshToken, "refresh token"}}
	if e.Key.AccessToken {
		tokens = append(tokens, struct{ token, hint, name string }{e.Token, flow.HintAccessToken, "access token"})
	}
	for _, t := range tokens {
		if t.token == "" {
			continue
		}
		err := client.Revoke(ctx, t.token, t.hint)
		switch {
		case errors.Is(err, flow.ErrNoRevocation):
			s.ui.warn("%v: what it gave out stays valid until it expires; those who run it can end the session there", err)
			return nil
		case err != nil:
			return err
		}
		s.ui.say("the provider revoked the %s", t.name)
	}
	return nil
}

package flow_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// broken is a network that fails some requests before they reach anybody. The
// errors are those that net and crypto/tls give; a bubble has no sockets to
// bring them about with (internal/cli's scripts have).
type broken struct {
	http.RoundTripper
	path  string
	times int
	err   error
}

func (n *broken) RoundTrip(req *http.Request) (*http.Response, error) {
	if n.times > 0 && strings.HasSuffix(req.URL.Path, n.path) {
		n.times--
		return nil, n.err
	}
	return n.RoundTripper.RoundTrip(req)
}

func (b *bench) breakNetwork(path string, times int, err error) {
	b.config.HTTP.Transport = &broken{RoundTripper: b.config.HTTP.Transport, path: path, times: times, err: err}
}

var networkErrors = map[string]error{
	"refused":       &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
	"reset":         &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)},
	"unreachable":   &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)},
	"DNS failure":   &net.DNSError{Err: "server misbehaving", Name: "issuer.test", IsTemporary: true},
	"no such host":  &net.DNSError{Err: "no such host", Name: "issuer.test", IsNotFound: true},
	"TLS failure":   x509.UnknownAuthorityError{},
	"cut off":       io.ErrUnexpectedEOF,
	"a dial's time": context.DeadlineExceeded,
}

func TestNetworkErrorsAreOutlived(t *testing.T) {
	for name, err := range networkErrors {
		t.Run(name, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 2 })
				b.breakNetwork("/token", 3, err)
				token := b.mustLogin()
				wantGaps(t, b, seconds(5+10+20+40, 5))

				// A renewal tries three times, within seconds.
				b.breakNetwork("/token", 2, err)
				client := b.new()
				start := time.Now()
				renewed, rerr := client.Refresh(t.Context(), flow.Previous{RefreshToken: token.RefreshToken(), Subject: token.Subject})
				b.see(rerr)
				if rerr != nil || renewed.Bearer().Equal(token.Bearer()) || time.Since(start) > 5*time.Second {
					t.Errorf("renewal: %v, after %v", rerr, time.Since(start))
				}
				b.breakNetwork("/token", 100, err)
				if _, rerr := b.new().Refresh(t.Context(), flow.Previous{RefreshToken: renewed.RefreshToken()}); !flow.Temporary(rerr) || errors.Is(rerr, flow.ErrRefreshRefused) {
					t.Errorf("a network that stays broken: %v", rerr)
				}
			})
		})
	}
}

// Every answer that is none is survived at renewal as well, and none of them
// is taken for the refresh token's end.
func TestRenewalOutlivesFaults(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1 })
				token := b.mustLogin()
				previous := flow.Previous{RefreshToken: token.RefreshToken(), Subject: token.Subject}
				b.is.Fault("refresh", 1, fault)
				renewed, err := b.client.Refresh(t.Context(), previous)
				b.see(err)
				// A server that asks for more patience than a person has gets none.
				wants := name == "503" || name == "429"
				switch {
				case wants && !flow.Temporary(err), !wants && err != nil:
					t.Fatalf("got %v", err)
				case wants:
					renewed, err = b.client.Refresh(t.Context(), previous)
				}
				if err != nil || renewed.Subject != token.Subject {
					t.Errorf("got %v, %v", renewed, err)
				}
				b.is.Fault("refresh", -1, fault)
				if _, err := b.client.Refresh(t.Context(), flow.Previous{RefreshToken: renewed.RefreshToken()}); !flow.Temporary(err) || errors.Is(err, flow.ErrRefreshRefused) {
					t.Errorf("a fault that stays: %v", err)
				}
			})
		})
	}
}

// A machine that slept: the wall clock has gone on, the monotonic one, and the
// timers with it, have not. Nothing can move a bubble's wall clock; to bring
// the code's end nearer by the same amount is the same to Poll.
func TestSuspend(t *testing.T) {
	for name, tt := range map[string]struct {
		slept time.Duration
		want  error
	}{
		"within the code's life": {5 * time.Minute, nil},
		"beyond the code's life": {20 * time.Minute, flow.ErrExpired},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.CodeLifetime, bh.ApproveAfterPolls = 15*time.Minute, 3 })
				auth, err := b.new().Authorize(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				b.is.Fault("poll", 1, func(http.ResponseWriter, *http.Request) bool {
					auth.ExpiresAt = auth.ExpiresAt.Add(-tt.slept)
					return false
				})
				start := time.Now()
				_, err = b.client.Poll(t.Context(), auth, nil)
				if !errors.Is(err, tt.want) || time.Since(start) > time.Minute {
					t.Errorf("got %v after %v, want %v", err, time.Since(start), tt.want)
				}
				if n := b.is.Count("poll"); tt.want != nil && n != 1 {
					t.Errorf("%d polls, the last of them after the code's end", n)
				}
			})
		})
	}
}

// A wall clock that is set back does not lengthen a code's life.
func TestClockSetBack(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(bh *issuer.Behaviour) { bh.CodeLifetime = 10 * time.Minute })
		auth, err := b.new().Authorize(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		auth.ExpiresAt = auth.ExpiresAt.Add(2 * time.Hour)
		start := time.Now()
		if _, err := b.client.Poll(t.Context(), auth, nil); !errors.Is(err, flow.ErrExpired) || time.Since(start) > 10*time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

// The provider's clock and this machine's differ by minutes or hours: the Date
// of its answers tells, and a token is judged by its provider's clock. What is
// kept is by this machine's.
func TestProviderClock(t *testing.T) {
	for name, ahead := range map[string]time.Duration{
		"ahead": 25 * time.Minute, "behind": -25 * time.Minute, "a day behind": -24 * time.Hour, "a little ahead": 20 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls, bh.ClockAhead = 1, ahead })
				token := b.mustLogin() // it lasts 10 min, so that one of a clock behind has expired by this machine's
				want, difference := 10*time.Minute, b.client.ClockDifference()
				if ahead.Abs() < time.Minute {
					ahead = 0
				}
				if life := token.ExpiresAt.Sub(token.IssuedAt); (life-want).Abs() > 2*time.Second || (difference-ahead).Abs() > 2*time.Second {
					t.Errorf("it lives for %v; the difference is taken to be %v", life, difference)
				}
				if _, err := b.new().Refresh(t.Context(), flow.Previous{RefreshToken: token.RefreshToken(), Subject: token.Subject}); err != nil {
					t.Errorf("renewal: %v", err)
				}
				// A token that has expired by the provider's own clock is still refused.
				b.is.Set(func(bh *issuer.Behaviour) { bh.IDTokenLifetime = -time.Minute })
				var refused *flow.VerificationError
				if _, _, err := b.login(); !errors.As(err, &refused) {
					t.Errorf("an expired token: %v", err)
				}
			})
		})
	}
}

// A proxy's page, and an answer out of a cache, say nothing of the provider's
// clock.
func TestForeignClock(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		old := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
		b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1 })
		b.is.Fault("poll", 1, issuer.Answer(502, "text/html", "<html>", "Date", old))
		b.is.Fault("poll", 1, issuer.Answer(400, "application/json", `{"error":"authorization_pending"}`, "Date", old, "Age", "3600"))
		b.mustLogin()
		if d := b.client.ClockDifference(); d != 0 {
			t.Errorf("the difference is taken to be %v", d)
		}
		// The last word: nothing after it could put it right.
		b.is.Fault("poll", 1, issuer.Answer(400, "application/json", `{"error":"access_denied"}`, "Date", old, "Age", "3600"))
		if _, _, err := b.login(); !errors.Is(err, flow.ErrDenied) {
			t.Fatal(err)
		}
		if d := b.client.ClockDifference(); d != 0 {
			t.Errorf("by an answer out of a cache the difference is taken to be %v", d)
		}
	})
}

// A roll-out or a proxy answers 404 now and then: only several in a row say that
// there is no such endpoint.
func TestFourOhFourNowAndThen(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls, bh.CodeLifetime = 15, 30*time.Minute })
		polls := 0
		b.is.Fault("poll", -1, func(w http.ResponseWriter, r *http.Request) bool {
			if polls++; polls%4 == 0 {
				w.WriteHeader(http.StatusNotFound)
			}
			return polls%4 == 0
		})
		b.mustLogin()
	})
}

// No request outlives the code, however long one may take.
func TestHangAtTheEndOfTheCode(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.config.HTTP.Timeout = time.Hour
		b.is.Set(func(bh *issuer.Behaviour) { bh.CodeLifetime = time.Minute })
		b.is.Fault("poll", -1, issuer.Hang)
		start := time.Now()
		if _, _, err := b.login(); !errors.Is(err, flow.ErrExpired) || time.Since(start) > 61*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// Approved at the last moment, and the keys are late: the code is used up, so
// that its end does not count any more.
func TestKeysAfterTheEndOfTheCode(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(bh *issuer.Behaviour) { bh.CodeLifetime, bh.ApproveAfterPolls = 12*time.Second, 2 })
		polls := 0
		b.is.Fault("poll", -1, func(http.ResponseWriter, *http.Request) bool {
			if polls++; polls == 2 {
				b.is.RotateKey(false)
				b.is.Fault("jwks", 1, func(http.ResponseWriter, *http.Request) bool {
					time.Sleep(20 * time.Second)
					return false
				})
			}
			return false
		})
		b.mustLogin()
	})
}

func TestOversizedToken(t *testing.T) {
	for _, field := range []string{"id_token", "refresh_token"} {
		bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
			b.is.Set(func(bh *issuer.Behaviour) {
				bh.ApproveAfterPolls = 1
				if field == "id_token" {
					bh.ExtraClaims = map[string]any{"padding": strings.Repeat("x", 64<<10)}
				} else {
					bh.TokenFields = map[string]any{"refresh_token": "SENTINEL" + strings.Repeat("x", 64<<10)}
				}
			})
			var refused *flow.VerificationError
			if _, token, err := b.login(); !errors.As(err, &refused) || token != nil {
				t.Errorf("%s: %v", field, err)
			}
		})
	}
}

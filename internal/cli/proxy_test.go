package cli_test

import (
	"io"
	"log"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// A login goes through the proxy of HTTPS_PROXY, and around it where NO_PROXY
// says so. Go takes no proxy for localhost and 127.0.0.0/8, whatever the
// variables say; it does for 0.0.0.0, which net.Dial takes for this machine.
func TestLoginThroughAProxy(t *testing.T) {
	for _, tt := range []struct {
		name, host, noProxy string
		tunnels             bool
	}{
		{"a name that only the proxy knows", "idp.invalid", "", true},
		{"an address", "0.0.0.0", "", true},
		{"NO_PROXY", "0.0.0.0", "0.0.0.0", false},
		{"NO_PROXY of another", "0.0.0.0", "192.0.2.1,idp.invalid", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, issuer.Options{})
			config, ca := serving(t, time.Now().Add(time.Hour), tt.host)
			server := httptest.NewUnstartedServer(nil)
			at := server.Listener.Addr().String()
			_, port, err := net.SplitHostPort(at)
			if err != nil {
				t.Fatal(err)
			}
			p.is = issuer.New(issuer.Options{Base: "https://" + net.JoinHostPort(tt.host, port)})
			p.set(func(b *issuer.Behaviour) {
				b.ApproveAfterPolls, b.DeviceFields = 1, map[string]any{"interval": 0.05}
			})
			server.Config.Handler, server.TLS, server.Config.ErrorLog = p.is.Handler(), config, log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()

			p.proxy("SENTINEL", at)
			for i, e := range p.env {
				p.env[i] = strings.Replace(e, "HTTPS_PROXY=http://", "HTTPS_PROXY=http://ada:SENTINEL@", 1)
			}
			p.env = append(p.env, "NO_PROXY="+tt.noProxy)
			p.issuerURL(p.is.URL())
			p.flag("--certificate-authority=" + p.write("idp.pem", ca))
			stdout, stderr, status := p.run(append([]string{"get-token", "--output=token", "--token-cache-storage=none", "-v"}, p.flags...)...)
			if status != 0 || !strings.HasPrefix(stdout, "eyJ") || strings.Contains(stderr, "SENTINEL") {
				t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
			}
			if n := p.tunnels.Load(); (n > 0) != tt.tunnels {
				t.Errorf("%d tunnels", n)
			}
		})
	}
}

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
)

// front is the TLS server before a provider. It writes down what clients ask,
// and every secret that the provider gives out.
type front struct {
	url    string
	server *httptest.Server

	mu       sync.Mutex
	requests []request
	secrets  map[string]string // secret → what it is
}

// request is one to the provider's OAuth endpoints.
type request struct {
	at     time.Time
	kind   string // "device authorization", "revocation", or the grant type
	client string
	status int
	err    string // the error of RFC 6749 section 5.2
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// startFront listens before it knows its handler: providers want to know their
// own URL first.
func startFront(ca *kube.CA, handler func(url string) (http.Handler, error)) (*front, error) {
	cert, key, err := ca.Serving("127.0.0.1")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &front{url: "https://" + l.Addr().String(), secrets: map[string]string{}}
	h, err := handler(f.url)
	if err != nil {
		l.Close()
		return nil, err
	}
	f.server = &httptest.Server{
		Listener: l,
		TLS:      &tls.Config{Certificates: []tls.Certificate{pair}},
		Config: &http.Server{
			Handler:  f.recorder(h),
			ErrorLog: log.New(io.Discard, "", 0), // a client that goes away is no news
		},
	}
	f.server.StartTLS()
	return f, nil
}

type grantTypeKey struct{}

// grantType is what the request of this context asked for.
func grantType(ctx context.Context) string {
	s, _ := ctx.Value(grantTypeKey{}).(string)
	return s
}

func (f *front) recorder(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, _ := url.ParseQuery(string(body)) // what does not parse is the provider's to refuse
		held := &heldBack{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(held, r.WithContext(context.WithValue(r.Context(), grantTypeKey{}, form.Get("grant_type"))))
		f.note(form, held)
		w.WriteHeader(held.status)
		w.Write(held.body.Bytes()) // the client may have gone
	})
}

// note runs before the client has the answer: who saw it finds it noted.
func (f *front) note(form url.Values, answered *heldBack) {
	var answer map[string]any
	_ = json.Unmarshal(answered.body.Bytes(), &answer) // pages are not JSON
	q := request{at: time.Now(), kind: form.Get("grant_type"), client: form.Get("client_id"), status: answered.status}
	q.err, _ = answer["error"].(string)
	switch {
	case q.kind != "":
	case answer["device_code"] != nil:
		q.kind = "device authorization"
	case form.Has("token"):
		q.kind = "revocation"
	default:
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, q)
	for _, name := range []string{"device_code", "access_token", "refresh_token", "id_token"} {
		if s, ok := answer[name].(string); ok && s != "" {
			f.secrets[s] = name
		}
	}
}

// count of the requests of a client that were of a kind and went well.
func (f *front) count(client, kind string) (n int) {
	for _, q := range f.of(client, kind) {
		if q.status == http.StatusOK {
			n++
		}
	}
	return n
}

func (f *front) of(client, kind string) (found []request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.requests {
		if q.client == client && q.kind == kind {
			found = append(found, q)
		}
	}
	return found
}

// leak names what is secret in a text.
func (f *front) leak(text string) (what string, found bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for secret, what := range f.secrets {
		if bytes.Contains([]byte(text), []byte(secret)) {
			return what, true
		}
	}
	return "", false
}

// issued counts the secrets of a kind, so that a search for none of them does
// not pass unseen.
func (f *front) issued(what string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.secrets {
		if w == what {
			n++
		}
	}
	return n
}

// heldBack keeps an answer; headers alone go through.
type heldBack struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (w *heldBack) WriteHeader(status int)      { w.status = status }
func (w *heldBack) Write(b []byte) (int, error) { return w.body.Write(b) }

// post sends a form to an endpoint that discovery names.
func (p *provider) post(t *testing.T, endpoint string, form url.Values) (status int, answer map[string]any) {
	t.Helper()
	client := p.client()
	var discovery map[string]any
	p.get(t, client, p.url+"/.well-known/openid-configuration", &discovery)
	response, err := client.PostForm(discovery[endpoint].(string), form)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatalf("%s: %v", endpoint, err)
	}
	return response.StatusCode, answer
}

func (p *provider) get(t *testing.T, client *http.Client, url string, into any) {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}

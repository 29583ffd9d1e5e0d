package issuer

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

// Fault answers a request in place of the issuer, or declines to. The form of
// the request has been parsed.
type Fault func(w http.ResponseWriter, r *http.Request) (handled bool)

type fault struct {
	times int
	f     Fault
}

// Fault puts a fault on an endpoint (see Count), for a number of requests; -1:
// for ever; 0: takes all faults off it. The oldest fault comes first, one on
// poll or refresh before one on token.
func (is *Issuer) Fault(endpoint string, times int, f Fault) {
	is.mu.Lock()
	defer is.mu.Unlock()
	if times == 0 {
		delete(is.faults, endpoint)
		return
	}
	is.faults[endpoint] = append(is.faults[endpoint], &fault{times, f})
}

// Error is a fault that answers with an OAuth error.
func Error(status int, code, description string) Fault {
	fields := map[string]string{"error": code}
	if description != "" {
		fields["error_description"] = description
	}
	body, err := json.Marshal(fields)
	if err != nil {
		panic("issuer: " + err.Error()) // strings can always be encoded
	}
	return Answer(status, "application/json", string(body))
}

// Answer is a fault that answers with any text, such as a proxy's HTML. The
// headers come in pairs.
func Answer(status int, contentType, body string, headers ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", contentType)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		w.Write([]byte(body)) // a client that is gone does not matter
		return true
	}
}

// Drop is a fault that cuts the connection without an answer. On a connection
// that was used before, net/http repeats a GET by itself: one Drop is then not
// seen by the program.
func Drop(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// Hang is a fault that answers nothing until the client gives up.
func Hang(_ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// Drip is a fault that answers one blank a second, without end.
func Drip(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("Content-Type", "application/json")
	for {
		select {
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-time.After(time.Second):
		}
		w.Write([]byte(" ")) // a client that is gone does not matter
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
	}
}

// faulty runs the faults of the endpoints until one of them answers. It runs
// without the mutex: a fault may call the issuer.
func (is *Issuer) faulty(endpoints []string, w http.ResponseWriter, r *http.Request) bool {
	for _, endpoint := range slices.Backward(endpoints) {
		is.mu.Lock()
		faults := slices.Clone(is.faults[endpoint])
		is.mu.Unlock()
		for _, f := range faults {
			if !is.take(f, -1) {
				continue
			}
			if f.f(w, r) {
				return true
			}
			is.take(f, +1)
		}
	}
	return false
}

// take counts a fault's uses, before it runs: two requests at the same moment
// must not share its last one.
func (is *Issuer) take(f *fault, n int) bool {
	is.mu.Lock()
	defer is.mu.Unlock()
	if f.times == 0 && n < 0 {
		return false
	}
	if f.times >= 0 {
		f.times += n
	}
	return true
}

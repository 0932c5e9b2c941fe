package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Server serves a Service on a listener.
type Server struct {
	service *Service
	http    http.Server
	// streams ends when those that have no end must.
	streams    context.Context
	endStreams context.CancelFunc
}

// readHeaderTimeout ends connections that ask nothing.
const readHeaderTimeout = 10 * time.Second

// NewServer returns a server that is not serving yet.
func NewServer(service *Service) *Server {
	s := &Server{service: service}
	s.streams, s.endStreams = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/effective", s.effective)
	mux.HandleFunc("GET /v1/rules", s.rules)
	mux.HandleFunc("GET /v1/flows", s.flows)
	mux.HandleFunc("GET /v1/top", s.top)
	mux.HandleFunc("GET /v1/next-hop", s.nextHop)
	mux.HandleFunc("POST /v1/verify", s.verify)
	mux.HandleFunc("POST /v1/reload", s.reload)
	mux.HandleFunc("POST /v1/diagnose", s.diagnose)
	mux.HandleFunc("GET /v1/securityGroupView", s.securityGroupView)
	mux.HandleFunc("GET /v1/tags", s.tags)
	mux.HandleFunc("GET /v1/tag", s.tag)
	for _, method := range []string{"GET", "POST"} {
		mux.HandleFunc(method+" /v1/trace", s.trace)
		mux.HandleFunc(method+" /v1/capture", s.capture)
	}
	s.http = http.Server{
		Handler: mux, ReadHeaderTimeout: readHeaderTimeout,
		ErrorLog: slog.NewLogLogger(service.options.Log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown closes the listener, which removes the socket, and lets running answers end;
// when ctx ends first they are cut off. Streams end at once, with their summary.
func (s *Server) Shutdown(ctx context.Context) error {
	s.endStreams()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, s.service.Status(), nil)
}

func (s *Server) effective(w http.ResponseWriter, r *http.Request) {
	result, err := s.service.Effective(r.URL.Query().Get("networkInterface"))
	answer(w, result, err)
}

func (s *Server) rules(w http.ResponseWriter, r *http.Request) {
	unused, err := flag(r, "unused")
	if err != nil {
		answer(w, nil, badRequest(err))
		return
	}
	list, err := s.service.Rules(RuleFilter{NetworkSecurityGroup: r.URL.Query().Get("networkSecurityGroup"), Unused: unused})
	answer(w, list, err)
}

func (s *Server) flows(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	filter := FlowFilter{NetworkInterface: q.Get("networkInterface"), Address: q.Get("address"), Protocol: q.Get("protocol")}
	if text := q.Get("limit"); text != "" {
		var err error
		if filter.Limit, err = strconv.Atoi(text); err != nil {
			answer(w, nil, badRequest(errLimit(text)))
			return
		}
	}
	list, err := s.service.Flows(filter)
	answer(w, list, err)
}

// verify reads and writes at the same time, so that a batch of any size needs no
// memory and a peer may wait for each answer.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	path, err := flag(r, "path")
	if err != nil {
		answer(w, nil, badRequest(err))
		return
	}
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	// Without the headers, a client that waits for them before it sends would hang.
	w.WriteHeader(http.StatusOK)
	if err := control.Flush(); err != nil {
		return
	}
	// The status is sent: an error can only cut the answer off, which the client sees.
	if err := VerifyStream(s.service.Snapshot(), path, r.Body, w); err != nil {
		s.service.options.Log.Debug("verify ended early", "error", err)
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) reload(w http.ResponseWriter, _ *http.Request) {
	reloaded, err := s.service.Reload()
	if err != nil {
		err = asError(err, http.StatusUnprocessableEntity)
	}
	answer(w, reloaded, err)
}

func (s *Server) diagnose(w http.ResponseWriter, r *http.Request) {
	q, err := decodeDiagnostic(r.Body)
	if err != nil {
		answer(w, nil, badRequest(err))
		return
	}
	result, err := Diagnose(s.service.Snapshot(), q)
	answer(w, result, err)
}

func (s *Server) securityGroupView(w http.ResponseWriter, r *http.Request) {
	result, err := SecurityGroupView(s.service.Snapshot(), r.URL.Query().Get("target"))
	answer(w, result, err)
}

func (s *Server) tags(w http.ResponseWriter, _ *http.Request) {
	answer(w, s.service.Tags(), nil)
}

func (s *Server) tag(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	result, err := s.service.Tag(TagQuestion{Name: q.Get("name"), Subnet: q.Get("subnet"), NetworkInterface: q.Get("networkInterface")})
	answer(w, result, err)
}

func flag(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, errors.New(name + ": " + strconv.Quote(text) + ": allowed are true and false")
	}
	return v, nil
}

// answer writes a result, or the error in its place.
func answer(w http.ResponseWriter, result any, err error) {
	status := http.StatusOK
	if err != nil {
		e := asError(err, http.StatusInternalServerError)
		status, result = e.Status, e
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that went away is no error of ours.
	json.NewEncoder(w).Encode(result)
}

;;; drive.el --- Tests the server with lsp-mode, a client that is not part of this project  -*- lexical-binding: t; -*-
;; Run: emacs -Q --batch -l drive.el.  Environment:
;;   C2L_SERVER    JSON list, the command that starts the server
;;   C2L_WORK      a folder for this run
;;   C2L_PACKAGES  folder with lsp-mode and its dependencies
;;   C2L_SCENARIOS names of functions `drive/NAME' to run in one session, separated by blanks
;;   C2L_TEXT      text of the file; the cursor is at its end
;;   C2L_EXPECTED  the expected first completion; empty: any
;;   C2L_PROMPTS   JSON list of texts; the completion of at least one changes when files are indexed
;;   C2L_FAULT     not empty: plant each scenario's fault, so that the run must fail
;;; Code:
(setq debug-on-error nil)
(dolist (folder (directory-files (getenv "C2L_PACKAGES") t "^[a-z]"))
  (add-to-list 'load-path folder))
(require 'json)
(setq lsp-auto-guess-root t
      lsp-warn-no-matched-clients nil
      lsp-restart 'ignore
      lsp-session-file (expand-file-name "session" (getenv "C2L_WORK"))
      lsp-keep-workspace-alive nil
      lsp-enable-suggest-server-download nil
      lsp-enable-dap-auto-configure nil
      lsp-modeline-code-actions-enable nil
      lsp-headerline-breadcrumb-enable nil
      lsp-enable-file-watchers nil
      lsp-lens-enable nil
      lsp-modeline-workspace-status-enable nil
      lsp-modeline-diagnostics-enable nil
      lsp-enable-snippet nil
      lsp-response-timeout 120
      lsp-inline-completion-enable t)
(require 'lsp-mode)
(require 'lsp-inline-completion)
(require 'python)
(defvar drive-trigger "automatic" "The setting c2l.completion.trigger.")
(lsp-register-custom-settings '(("c2l.completion.trigger" drive-trigger)
                                ("c2l.completion.maxLatencyMs" 20000)
                                ("c2l.completion.maxLatencyInvokedMs" 30000)))
(lsp-register-client
 (make-lsp-client :new-connection (lsp-stdio-connection (append (json-read-from-string (getenv "C2L_SERVER")) nil))
                  :environment-fn (lambda () '(("PYTHONPATH" . "")))
                  :activation-fn (lsp-activate-on "python")
                  :priority 10
                  :multi-root t
                  :notification-handlers (ht ("c2l/didChangeStatus" #'ignore) ("c2l/adapter/didChange" #'ignore))
                  :initialized-fn (lambda (workspace)
                                    (with-lsp-workspace workspace
                                      (lsp--set-configuration (lsp-configuration-section "c2l"))))
                  :server-id 'c2l))
(setq lsp-enabled-clients '(c2l))

(defvar drive-fault (not (string= (or (getenv "C2L_FAULT") "") "")))
(defvar drive-text (getenv "C2L_TEXT"))
(defvar drive-patience (if drive-fault 10 (string-to-number (or (getenv "C2L_WAIT") "180"))) "Timeout in seconds; short with a fault, because the awaited event never comes.")

(defun drive-wait (what predicate &optional seconds)
  "Return the first true value of PREDICATE; fail naming WHAT after SECONDS."
  (let ((end (+ (float-time) (or seconds drive-patience))) got)
    (while (and (not (setq got (funcall predicate))) (< (float-time) end))
      (accept-process-output nil 0.05))
    (or got (error "Timed out waiting for %s" what))))

(defun drive-equal (what got expected)
  "Fail naming WHAT unless GOT equals EXPECTED."
  (unless (equal got expected)
    (error "%s: got %S, expected %S" what got expected)))

(defun drive-buffer ()
  "Return the text of the buffer."
  (buffer-substring-no-properties (point-min) (point-max)))

(defun drive-reset (&optional text)
  "Replace the buffer by TEXT (default: the initial text) and hide completions."
  (when (lsp-inline-completion--active-p) (lsp-inline-completion-cancel))
  (erase-buffer)
  (insert (or text drive-text)))

(defun drive-request (kind)
  "Request completions and return their texts; KIND 1 is invoked, 2 automatic."
  (let ((params (append (lsp--text-document-position-params) (list :context (list :triggerKind kind)))))
    (mapcar (lambda (item) (lsp-get item :insertText))
            (lsp-get (lsp-request "textDocument/inlineCompletion" params) :items))))

(defun drive-show ()
  "Display a completion and return its text."
  (drive-wait "the overlay" (lambda ()
                              (or (bound-and-true-p lsp-inline-completion--overlay)
                                  (progn (lsp-inline-completion-display) nil))))
  (drive-shown))

(defun drive-shown ()
  "Return the text of the displayed completion."
  (lsp-get (elt lsp-inline-completion--items lsp-inline-completion--current) :insertText))

(defun drive-status ()
  "Return the server's status, with the state of this file."
  (lsp-request "c2l/status" (list :textDocument (list :uri (lsp--buffer-uri)))))

(defun drive-generation (&optional folder)
  "Return the adapter generation of FOLDER or of the current folder; nil while busy."
  (let* ((status (drive-status))
         (found (if folder
                    (seq-find (lambda (one) (string-suffix-p folder (lsp-get one :folder))) (lsp-get status :folders))
                  (and (string= (lsp-get status :state) "ready") (lsp-get status :adapter)))))
    (and found (> (lsp-get found :generation) 0) (lsp-get found :generation))))

(defun drive-open ()
  "Open a file in a folder and wait until the server is ready for it."
  (let* ((work (expand-file-name "one" (getenv "C2L_WORK"))) (path (expand-file-name "demo.py" work)))
    (make-directory (expand-file-name ".git" work) t)
    (let ((coding-system-for-write 'utf-8))
      (with-temp-file path (insert drive-text)))
    (find-file path)
    (python-mode)
    (lsp-workspace-folders-add work)
    (lsp)
    (drive-wait "the first server" #'drive-ready 180)
    (unless (lsp-feature? "textDocument/inlineCompletion")
      (error "The server does not announce inline completion"))
    (set-window-buffer (selected-window) (current-buffer))
    (drive-reset)
    (drive-wait "an adapter" #'drive-generation 180)
    (let ((given (drive-wait "a completion" (lambda () (car (drive-request 1))) 180)))
      (unless (string= (or (getenv "C2L_EXPECTED") "") "")
        (drive-equal "completion" given (getenv "C2L_EXPECTED"))))))

(defun drive-ready ()
  "Return whether a server is attached and initialized."
  (and (lsp-workspaces) (eq 'initialized (lsp--workspace-status (car (lsp-workspaces))))))

(defun drive-plant-wrong-text ()
  "Plant the fault that accepting inserts a wrong text."
  (when drive-fault
    (advice-add 'lsp-inline-completion--insert-sugestion :filter-args
                (lambda (arguments) (cons (concat "x" (car arguments)) (cdr arguments))))))

(defun drive/accept ()
  "Accepting inserts the displayed text, and the saved file contains it."
  (drive-reset)
  (let ((given (drive-show)) (path buffer-file-name))
    (drive-plant-wrong-text)
    (lsp-inline-completion-accept)
    (drive-equal "buffer" (drive-buffer) (concat drive-text given))
    (let ((require-final-newline nil)) (save-buffer))
    (drive-equal "file" (with-temp-buffer (insert-file-contents path) (buffer-string))
                 (concat drive-text given))))

(defun drive/cycle ()
  "The next candidate differs, and accepting inserts it."
  (drive-reset)
  (when drive-fault (advice-add 'lsp-inline-completion-next :override #'ignore))
  (let ((first (drive-show)) second)
    (lsp-inline-completion-next)
    (setq second (drive-shown))
    (when (equal first second) (error "There is no second candidate"))
    (lsp-inline-completion-accept)
    (drive-equal "the chosen candidate" (drive-buffer) (concat drive-text second))))

(defun drive/typing-through ()
  "After typing the start of the completion, accepting inserts the rest."
  (drive-reset)
  (let* ((given (drive-show)) (typed (substring given 0 2)))
    (lsp-inline-completion-cancel)
    (insert typed)
    (drive-plant-wrong-text)
    (drive-equal "the rest" (drive-wait "the rest" (lambda () (car (drive-request 2)))) (substring given 2))
    (lsp-inline-completion-display)
    (drive-wait "the overlay" (lambda () (bound-and-true-p lsp-inline-completion--overlay)))
    (let ((rest (drive-shown)))
      (lsp-inline-completion-accept)
      (drive-equal "typed, then accepted" (drive-buffer) (concat drive-text typed rest)))))

(defun drive/toggle ()
  "Off returns no completions, and the status has the reason."
  (drive-reset)
  (unless drive-fault (lsp-request "workspace/executeCommand" '(:command "c2l.toggle" :arguments [(:enabled :json-false)])))
  (drive-equal "no completions while off" (drive-request 1) nil)
  (drive-equal "the reason" (lsp-get (drive-status) :disabledReason) "off")
  (lsp-request "workspace/executeCommand" '(:command "c2l.toggle" :arguments [(:enabled t)]))
  (drive-wait "a completion again" (lambda () (drive-request 1))))

(defun drive-answers ()
  "Return the first completion after each prompt."
  (mapcar (lambda (prompt) (drive-reset prompt) (car (drive-request 1)))
          (append (json-read-from-string (getenv "C2L_PROMPTS")) nil)))

(defun drive/adapts-to-changed-files ()
  "After a file changes on disk, there is a new generation and a completion differs."
  (let ((now (drive-wait "an adapter" #'drive-generation)) (before (drive-answers)) (number 0))
    (drive-reset)
    (let ((path (expand-file-name (if drive-fault "../zoo.py" "zoo.py"))))
      (with-temp-file path
        (insert "import zebra\n\n\n")
        (dotimes (number 60)
          (insert (format "from zebra import quokka_%d\n\n\ndef quokka_handler_%d(wombat):\n" number number)
                  "    result = wombat_service(wombat)\n    return zebra.quokka_handler(result)\n\n\n"))))
    (drive-wait "a new generation" (lambda () (> (or (drive-generation) 0) now)))
    ;; The buffer with the prompts is indexed too, so a new generation may not contain the file yet.
    (drive-wait "a changed completion" (lambda () (not (equal (drive-answers) before))) 60)))

(defun drive/settings ()
  "A changed setting applies at once."
  (drive-reset)
  (setq drive-trigger "manual")
  (unless drive-fault (lsp--set-configuration (lsp-configuration-section "c2l")))
  (drive-wait "the reason" (lambda () (equal (lsp-get (drive-status) :disabledReason) "manual")))
  (drive-equal "no automatic completion with manual" (drive-request 2) nil)
  (unless (drive-request 1) (error "No completion on request"))
  (setq drive-trigger "automatic")
  (lsp--set-configuration (lsp-configuration-section "c2l"))
  (drive-wait "no reason" (lambda () (not (lsp-get (drive-status) :disabledReason)))))

(defun drive/killed ()
  "After the server was killed, Emacs notices it and a new server works."
  (drive-reset)
  (let* ((workspace (car (lsp-workspaces))) (process (lsp--workspace-cmd-proc workspace)))
    (signal-process process 'SIGKILL)
    (drive-wait "the process to end" (lambda () (not (process-live-p process))))
    (drive-wait "Emacs to notice the end" (lambda () (not (drive-ready))))
    (unless drive-fault (lsp))
    (drive-wait "the server" #'drive-ready)
    (drive-wait "an adapter" #'drive-generation)
    (drive-wait "a completion" (lambda () (drive-request 1)))))

(defun drive/folders ()
  "One server serves two folders, each with its own adapter."
  (let* ((work (expand-file-name "two" (getenv "C2L_WORK"))) (path (expand-file-name "b.py" work)))
    (make-directory (expand-file-name ".git" work) t)
    (with-temp-file path (insert drive-text))
    (unless drive-fault (lsp-workspace-folders-add work))
    (find-file path)
    (python-mode)
    (unless drive-fault (lsp))
    (drive-wait "the server" #'drive-ready)
    (drive-wait "an adapter for each folder" (lambda () (and (drive-generation "/one") (drive-generation "/two"))))
    (set-window-buffer (selected-window) (current-buffer))
    (goto-char (point-max))
    (unless (drive-request 1) (error "No completion in the second folder"))))

(condition-case problem
    (progn
      (drive-open)
      (dolist (name (split-string (getenv "C2L_SCENARIOS")))
        (funcall (intern (concat "drive/" name)))
        (message "PASSED %s" name))
      (message "OK")
      (kill-emacs 0))
  (error (message "FAILED %s" (error-message-string problem)) (kill-emacs 1)))
;;; drive.el ends here
